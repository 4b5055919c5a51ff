import argparse
import os

import pytest

from ipcs.cli import build_parser, run
from ipcs.cli.options import duration
from ipcs.cli.terminal import human_bytes


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1m30s", 90), ("500ms", 0.5), ("2", 2), ("0.5", 0.5), ("1h", 3600)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "5s5", "-1s", "1 m"])
def test_what_is_no_duration(text):
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (296_160_075, "296.2 MB"), (3e12, "3.0 TB")]
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


def leaf_parsers(parser, name="ipcs"):
    """Every command that can be run, with its full name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for word, child in group.choices.items():
            yield from leaf_parsers(child, f"{name} {word}")


def test_every_command_has_help_that_ends_with_a_runnable_example():
    for name, parser in leaf_parsers(build_parser()):
        assert parser.description, name
        last = parser.format_help().rstrip().splitlines()[-1]
        assert name in last, f"{name}: the help ends with {last!r}"


def test_a_user_without_a_name_or_a_home(monkeypatch, capsys):
    """As a bare uid in a container is: every command must be there, and say what it lacks."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "IPCS_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # no passwd file has it
    assert run(["stat"]) == 2
    assert "--repo or IPCS_PATH" in capsys.readouterr().err
    args = build_parser().parse_args(["pin", "add", "sha256:" + "0" * 64])
    assert args.owner == f"user/{2**31 - 7}"
