"""dag-cbor by the `dag-cbor` library, its errors translated: only CAR headers and foreign DAGs come this way.

It needs 37 ms for 174 links, so nothing that is read often may be dag-cbor.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..block import Data
from ..cid import Cid, check_cid
from ..errors import MalformedBlock

_FAULTS = (LookupError, OverflowError, RecursionError, ValueError)
"""What the library lets through besides its own error on some malformed input; found by fuzzing (0.3.3)."""


def decode(data: Data) -> object:
    """The value in `data`. Raises `MalformedBlock` for anything but one strict dag-cbor item."""
    import dag_cbor
    from dag_cbor.decoding.err import CBORDecodingError

    try:
        return dag_cbor.decode(bytes(data))
    except (CBORDecodingError, *_FAULTS) as exc:
        raise MalformedBlock(f"block is not dag-cbor: {type(exc).__name__}: {exc}") from exc


def links(value: object) -> list[Cid]:
    """The CIDs anywhere in a decoded value, in order. Raises `InvalidArgument` for a malformed one."""
    from multiformats import CID

    found: list[Cid] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, CID):
            found.append(check_cid(bytes(item)))
        elif isinstance(item, dict):
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))
    return found


def is_link(value: object) -> bool:
    """Whether a decoded value is a CID."""
    from multiformats import CID

    return isinstance(value, CID)


def encode_car_header(roots: Sequence[Cid]) -> bytes:
    """The header of a version 1 CAR."""
    from dag_cbor import encode
    from multiformats import CID

    return encode({"roots": [CID.decode(root) for root in roots], "version": 1})
