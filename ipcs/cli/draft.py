"""Output files that appear under their name only when they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def draft_file(target: Path, stdout: BinaryIO) -> Iterator[BinaryIO]:
    """A file to write that becomes `target`, replacing it, when the block ends well; `stdout` itself for `-`."""
    if str(target) == "-":
        yield stdout
        stdout.flush()
        return
    draft = target.with_name(f".{target.name}.part")
    try:
        with draft.open("wb") as file:
            yield file
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
