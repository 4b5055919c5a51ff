"""Where the command line prints: results on stdout, progress on a terminal's stderr, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol


class Progress(Protocol):
    """A bar that may be invisible."""

    def update(self, done: int, total: int | None = None) -> None:
        """`done` of `total` bytes; a total of None leaves the last one."""
        ...


class Terminal:
    """The standard streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def raw(self) -> BinaryIO:
        """Standard output for content."""
        return sys.stdout.buffer

    def line(self, text: str) -> None:
        """One line of a result for people."""
        sys.stdout.write(text + "\n")

    def document(self, value: object) -> None:
        """One JSON document on a line of its own."""
        sys.stdout.write(json.dumps(value) + "\n")

    def show(self, value: dict[str, Any], text: str) -> None:
        """`value` under --json, else `text`."""
        if self.as_json:
            self.document(value)
        else:
            self.line(text)

    def error(self, message: str) -> None:
        """One line on stderr."""
        sys.stderr.write(f"ipcs: {message}\n")

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Progress]:
        """A bar in bytes on a terminal, nothing in a pipe or under --json."""
        if self.as_json or not sys.stderr.isatty():
            yield _NoProgress()
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total)
            yield _RichBar(bars, task)


class _NoProgress:
    def update(self, done: int, total: int | None = None) -> None:
        """Invisible."""


class _RichBar:
    def __init__(self, bars: Any, task: Any) -> None:  # noqa: ANN401 - rich is imported only where it is shown
        self._bars = bars
        self._task = task

    def update(self, done: int, total: int | None = None) -> None:
        self._bars.update(self._task, completed=done, **({} if total is None else {"total": total}))


def human_bytes(count: float) -> str:
    """`count` bytes in decimal units, as disks and networks are sold: 296.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
