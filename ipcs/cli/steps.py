"""The steps of an export as they come over the control socket (`ipcs.control.files.encode_export_step`)."""

from __future__ import annotations

from typing import Any

from ..cid import parse_cid
from ..errors import RemoteProtocolError
from ..unixfs.node import Kind
from ..unixfs.resolve import Stat, encode_name
from ..unixfs.traverse import Enter, Leave
from ..unixfs.tree import decode_attributes

_KINDS = {"file": Kind.FILE, "directory": Kind.DIRECTORY, "symlink": Kind.SYMLINK}


def decode_export_step(frame: dict[str, Any]) -> Enter | Leave:
    """A node's entry or exit. Raises `RemoteProtocolError` when the node speaks otherwise."""
    try:
        path = tuple(encode_name(name) for name in frame["path"])
        target = encode_name(frame.get("target", ""))
        stat = Stat(parse_cid(frame["cid"]), _KINDS[frame["type"]], frame["size"], decode_attributes(frame), target)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RemoteProtocolError(f"the node sent a malformed entry: {exc!r}") from exc
    return Leave(path, stat) if frame.get("leave") else Enter(path, stat)
