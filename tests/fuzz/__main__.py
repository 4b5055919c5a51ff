"""Run a target over its corpus, then, with atheris, over what coverage-guided mutation makes of it.

    python -m tests.fuzz dag-pb --seconds 600
    python -m tests.fuzz all --seconds 0         the corpora only; needs no atheris

A finding ends the run: its input is written to --artifacts and its traceback shown. Put the input into the target's
corpus with the fix.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def run_corpus(name: str) -> int:
    """Give every input of a target's corpus to it; how many there are. Raises what a finding raises."""
    from tests.fuzz.targets import TARGETS

    files = sorted((CORPUS / name).glob("*"))
    for path in files:
        TARGETS[name](path.read_bytes())
    return len(files)


def fuzz(name: str, seconds: int, kept: Path | None, artifacts: Path) -> None:
    """Fuzz for `seconds`; new inputs are kept in `kept`. Ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ipcs", "dag_cbor", "multiformats"]):
        from tests.fuzz.targets import TARGETS
    folder = kept or Path(tempfile.mkdtemp(prefix="ipcs-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-rss_limit_mb=2048",
        "-timeout=20",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={artifacts}/", str(folder), str(CORPUS / name)], TARGETS[name]
    )
    atheris.Fuzz()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="name of a target, or all (its corpora only)")
    parser.add_argument("--seconds", type=int, default=60, help="0 runs the corpus only")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that reached something new")
    parser.add_argument(
        "--artifacts", type=Path, default=Path(".cache/fuzz"), help="folder for inputs that are findings"
    )
    args = parser.parse_args()
    if args.seconds == 0 or args.target == "all":
        from tests.fuzz.targets import TARGETS

        for name in TARGETS if args.target == "all" else [args.target]:
            sys.stdout.write(f"{name}: {run_corpus(name)} inputs, no finding\n")
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        sys.stderr.write("atheris is not installed (pip install 'ipcs[fuzz]'): running the corpus only\n")
        sys.stdout.write(f"{args.target}: {run_corpus(args.target)} inputs, no finding\n")
        return 0
    fuzz(args.target, args.seconds, args.keep, args.artifacts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
