"""Targets for everything that reads bytes of a DAG. Each checks a property besides "only named errors"."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from ipcs.block import Data, block_from_prefix, check_block, identity_data, prefix_of
from ipcs.cid import DAG_CBOR, DAG_PB, Cid, check_cid, cid_v1, format_cid, multihash_of, parse_cid, read_cid
from ipcs.errors import IpcsError
from ipcs.unixfs import archive, dag_pb, node, resolve, traverse, walk
from ipcs.unixfs import car as cars
from ipcs.unixfs.budget import Budget, Spending
from ipcs.unixfs.reader import FileReader

T = TypeVar("T")

SMALL = Budget(depth=12, blocks=60, size=1 << 20)
"""Enough to get anywhere, little enough for thousands of runs a second."""

ROOT = Cid(cid_v1(DAG_PB, b"\x12\x20" + bytes(32)))


def dag_pb_node(data: bytes) -> None:
    """What is decoded is encoded to something that decodes to the same."""
    with contextlib.suppress(IpcsError):
        decoded = dag_pb.decode(data)
        again = dag_pb.decode(dag_pb.encode_trusted(decoded.links, decoded.data))
        assert again == decoded
        walk.links_of(ROOT, data)


def unixfs_message(data: bytes) -> None:
    """Likewise, but for the bits that encoding leaves out."""
    with contextlib.suppress(IpcsError):
        decoded = node.decode(data)
        again = node.decode(node.encode(decoded))
        mode = (decoded.mode or 0) & node.MODE_BITS
        assert again == decoded._replace(mode=mode or None, data=decoded.data or None)


def cid(data: bytes) -> None:
    """Binary, text and prefix forms agree with each other."""
    with contextlib.suppress(IpcsError):
        parse_cid(data.decode("utf-8", "replace"))
    with contextlib.suppress(IpcsError):
        block_from_prefix(data[:12], data)
    with contextlib.suppress(IpcsError):
        read_cid(data, 0, 200)
    with contextlib.suppress(IpcsError):
        checked = check_cid(data)
        assert read_cid(data) == (checked, len(data))
        assert parse_cid(format_cid(checked)) == checked
        multihash_of(checked)
        prefix_of(checked)
        carried = identity_data(checked)
        if carried is not None:
            assert check_block(checked, carried).data == carried
        check_block(checked, b"other bytes")


def car(data: bytes) -> None:
    """How the archive is cut into pieces makes no difference."""
    assert _read_car(data, len(data) or 1) == _read_car(data, 7)


def _read_car(data: bytes, piece: int) -> list[object]:
    reader = cars.CarReader()
    seen: list[object] = []
    try:
        for begin in range(0, len(data), piece):
            seen += reader.feed(data[begin : begin + piece])
        reader.finish()
    except IpcsError as exc:
        return [type(exc)]
    return [reader.version, *reader.roots, *((block.cid, bytes(block.data)) for block in seen)]  # type: ignore[attr-defined]


def dag_cbor_links(data: bytes) -> None:
    """Links come out, or a named error."""
    with contextlib.suppress(IpcsError):
        walk.links_of(Cid(cid_v1(DAG_CBOR, b"\x12\x20" + bytes(32))), data)


class AnyBlocks:
    """A source that has every block: which bytes, the first byte of the digest says. So input decides the DAG."""

    def __init__(self, data: bytes) -> None:
        self._blocks: list[bytes] = []
        while data and len(self._blocks) < 8:
            length = int.from_bytes(data[:2], "big") % 2048
            self._blocks.append(data[2 : 2 + length])
            data = data[2 + length :]

    async def get_many(self, cids: Sequence[Cid]) -> list[Data]:
        return [self._block(link) for link in cids]

    def _block(self, link: Cid) -> bytes:
        return self._blocks[sum(multihash_of(link)[2:3]) % len(self._blocks)] if self._blocks else b""

    async def fetch_many(self, cids: Sequence[Cid]) -> None:
        """All are here."""

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """All are here."""


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waited")


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def file(data: bytes) -> None:
    """A range is what the whole file has there."""
    source = AnyBlocks(data)
    with contextlib.suppress(IpcsError):
        whole = _read(source, 0, None)
        assert _read(source, 3, 10) == whole[3:13]


def _read(source: AnyBlocks, offset: int, length: int | None) -> bytes:
    reader = FileReader(ROOT, offset, length, Spending(SMALL, ROOT))
    out = b""
    blocks: list[Data] = []
    while True:
        out += b"".join(reader.supply(blocks))
        wanted = reader.wanted()
        if not wanted:
            return out
        reader.ahead()
        blocks = _run(source.get_many(wanted))


def hamt_directory(data: bytes) -> None:
    """What a listing shows, a lookup finds."""
    source = AnyBlocks(data)
    with contextlib.suppress(IpcsError):
        links = _run(_all(resolve.entries(source, ROOT, SMALL)))
        for link in links[:4]:
            assert _run(resolve.resolve(source, ROOT, [link.name or b""])) == link.cid
    with contextlib.suppress(IpcsError):
        _run(resolve.resolve(source, ROOT, [b"a", b"b"]))


def tree(data: bytes) -> None:
    """A whole tree as a tar stream, and a walk over all of its blocks."""
    source = AnyBlocks(data)
    with contextlib.suppress(IpcsError):
        writer = archive.TarWriter(b"root")
        for step in _run(_all(traverse.traverse(source, ROOT, SMALL))):
            b"".join(writer.step(step))
    with contextlib.suppress(IpcsError):
        _run(_all(walk.walk(source, [ROOT], SMALL)))
    with contextlib.suppress(IpcsError):
        _run(walk.fetch_dag(source, ROOT, SMALL))
