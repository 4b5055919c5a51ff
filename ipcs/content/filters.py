"""containerd's filter grammar: `labels."containerd.io/gc.root",digest~=/^sha256:ab/`.

    filters   := none (everything matches) or any of several
    filter    := selector ("," selector)*                      all must match
    selector  := fieldpath [operator value]                    without an operator: the field is present
    fieldpath := field ("." field)*
    field     := quoted | [A-Za-z0-9_-]+
    operator  := "==" | "!=" | "~="
    value     := quoted | [^\\s,]+                              after "~=" also quoted by / or |

Source: containerd pkg/filters (parser.go, scanner.go, filter.go). `!=` also holds for an absent field, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import InvalidArgument
from .descriptor import Info, Status

T = TypeVar("T")
Field = Callable[[T, Sequence[str]], str | None]
"""The text of the field at a path, None where it is absent."""

_SPACE = re.compile(r"\s*")
_BARE_FIELD = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^\s,\"]\S*?(?=,|\s|$)")
_OPERATOR = re.compile(r"[=!~]+")
_QUOTED = {quote: re.compile(rf"{quote}((?:[^{quote}\\\n]|\\.)*){quote}") for quote in ('"', "/", "\\|")}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")
_SIMPLE_ESCAPES = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))


def info_field(info: Info, path: Sequence[str]) -> str | None:
    """Fields of an `Info` that containerd filters by (core/content/adaptor.go)."""
    if path[0] == "digest":
        return info.digest
    if path[0] == "labels":
        return info.labels.get(".".join(path[1:]))
    return None


def status_field(status: Status, path: Sequence[str]) -> str | None:
    """Fields of a `Status` that containerd filters by."""
    return status.ref if path[0] == "ref" else None


def parse_filters(texts: Sequence[str], field: Field[T]) -> Callable[[T], bool]:
    """A predicate that holds when any of `texts` matches; with none of them, always. Raises `InvalidArgument`."""
    if not texts:
        return lambda _: True
    parsed = [_Parser(text).parse(field) for text in texts]
    return lambda value: any(matches(value) for matches in parsed)


class _Parser:
    """Recursive descent over one filter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self, field: Field[T]) -> Callable[[T], bool]:
        if not self._text:
            return lambda _: True
        selectors = [self._selector(field)]
        while self._peek() == ",":
            self._at += 1
            selectors.append(self._selector(field))
        if self._peek():
            raise self._error("unexpected input")
        return lambda value: all(matches(value) for matches in selectors)

    def _selector(self, field: Field[T]) -> Callable[[T], bool]:
        path = [self._field()]
        while self._peek() == ".":
            self._at += 1
            path.append(self._field())
        if self._peek() in ("", ","):
            return lambda value: field(value, path) is not None
        operator = self._take(_OPERATOR, "an operator (==, != or ~=)")
        if operator == "==":
            wanted = self._value('"')
            return lambda value: field(value, path) == wanted
        if operator == "!=":
            wanted = self._value('"')
            return lambda value: field(value, path) != wanted
        if operator == "~=":
            pattern = self._pattern()
            return lambda value: pattern.search(field(value, path) or "") is not None
        raise self._error(f"unsupported operator {operator!r}")

    def _pattern(self) -> re.Pattern[str]:
        text = self._value('"/|')
        try:
            return re.compile(text)
        except re.error as exc:
            raise self._error(f"bad regular expression {text!r}: {exc}") from exc

    def _field(self) -> str:
        if self._peek() == '"':
            return self._quoted()
        return self._take(_BARE_FIELD, "a field")

    def _value(self, quotes: str) -> str:
        if (first := self._peek()) and first in quotes:
            return self._quoted()
        return self._take(_BARE_VALUE, "a value")

    def _quoted(self) -> str:
        quote = self._text[self._at]
        body = self._take(_QUOTED[re.escape(quote) if quote == "|" else quote], "a terminated quoted text")[1:-1]
        return _ESCAPE.sub(lambda found: self._unescape(found[1], quote), body)

    def _unescape(self, escape: str, quote: str) -> str:
        if escape == quote:
            return quote
        if len(escape) > 1:
            number = int(escape, 8) if escape[0].isdigit() else int(escape[1:], 16)
            if number > 0x10FFFF:
                raise self._error(f"illegal escape \\{escape}")
            return chr(number)
        if escape in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[escape]
        if quote != '"':  # regular expressions keep their own escapes
            return "\\" + escape
        raise self._error(f"illegal escape \\{escape}")

    def _peek(self) -> str:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches everywhere
        return self._text[self._at : self._at + 1]

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        self._peek()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._error(f"expected {what}")
        self._at = found.end()
        return found[0]

    def _error(self, what: str) -> InvalidArgument:
        return InvalidArgument(f"filter {self._text!r}, at {self._at}: {what}", subject=self._text)
