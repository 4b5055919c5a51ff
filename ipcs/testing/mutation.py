"""Planted faults: a method with a piece of its source replaced, for tests that must notice.

A state machine that passes proves nothing until it has been seen to fail. A `Mutant` names one fault; a test plants it
and demands that its machine fails. The replaced text must be there exactly once, so that the list cannot rot.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """In `method` of `owner`, `old` becomes `new`. `name` says what is broken."""

    name: str
    owner: type
    method: str
    old: str
    new: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The fault is in place as long as the block runs."""
        original = inspect.getattr_static(self.owner, self.method)
        function = original.fget if isinstance(original, property) else original
        assert function is not None
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise LookupError(f"mutant {self.name!r}: {self.old!r} is not once in {self.owner.__name__}.{self.method}")
        names: dict[str, object] = {}
        code = compile(source.replace(self.old, self.new), f"<mutant {self.name}>", "exec")
        exec(code, vars(sys.modules[self.owner.__module__]), names)
        setattr(self.owner, self.method, names[self.method])
        try:
            yield
        finally:
            setattr(self.owner, self.method, original)
