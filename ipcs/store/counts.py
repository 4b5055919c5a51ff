"""Reference counts of blocks: what makes the cost of a collection grow with what goes, not with what stays.

A block is *counted* when it belongs to the DAG of some root (a blob record or a reference); else it is *loose*, and
stands in the queue of loose blocks. The one rule: the count of a block is the number of counted blocks that link to it
(each once, however often it repeats the link), plus one if it is a root, plus its pending decrements. A block is
counted when the first of these appears, and only then are its own links counted, so that adding or dropping a DAG
touches the blocks that it does not share.

Blocks are keyed by multihash but have links only under a codec: the entry remembers the codec under which its links
were counted. Decrements are queued in the same atomic batch that makes them due, so a crash loses none of them and a
large DAG is dropped in small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..block import Data
from ..cid import IDENTITY, RAW, Cid, Multihash, cid_v1, codec_of, format_cid, multihash_of
from ..errors import NotFound
from . import layout
from .datastore import Transaction

LinksOf = Callable[[Cid, Data], list[Cid]]
"""The links of a block, in order. Raises `IpcsError` when it is malformed; must answer [] for codecs without links."""

ReadBlock = Callable[[Multihash, bytes], Data | None]
"""The bytes of a block from its key and index value, checked against the key; None when they are gone or corrupt."""


class Counter:
    """Adds and drops counts inside a `Transaction`; holds no state of its own."""

    def __init__(self, links_of: LinksOf, read_block: ReadBlock) -> None:
        self._links_of = links_of
        self._read_block = read_block

    def add(self, transaction: Transaction, root: Cid) -> None:
        """Count the DAG under `root`. Raises `NotFound` naming the first block that the store does not hold."""
        batches = [distinct([root])]
        while batches:
            links = batches.pop()
            values = transaction.get_many([layout.BLOCK + multihash for multihash in links])
            for (multihash, cid), value in zip(links.items(), values, strict=True):
                if value is None or layout.is_missing(value):
                    raise _not_whole(root, cid)
                entry = layout.unpack_entry(value)
                codec = entry.codec or codec_of(cid)
                if codec != RAW and not entry.codec:
                    batches.append(self._children(root, cid, multihash, value))
                counted = entry._replace(counted=entry.counted + 1, codec=0 if codec == RAW else codec)
                transaction.put(layout.BLOCK + multihash, layout.repack_entry(counted, value))

    def drop(self, transaction: Transaction, multihash: Multihash, serial: Iterator[int]) -> bytes | None:
        """Take one from the count of a block; its last index value once nothing counts it any more, else None.

        The block is then loose, with no entry in the queue yet, and decrements of its links are pending.
        """
        key = layout.BLOCK + multihash
        value = transaction.get(key)
        entry = None if value is None else layout.unpack_entry(value)
        if value is None or entry is None or not entry.counted:
            return None
        left = entry._replace(counted=entry.counted - 1)
        if left.counted:
            transaction.put(key, layout.repack_entry(left, value))
            return None
        if entry.codec:
            pend(transaction, self.links(multihash, value), serial)
        loose = layout.repack_entry(left._replace(codec=0), value)
        transaction.put(key, loose)
        return loose

    def links(self, multihash: Multihash, value: bytes) -> list[Multihash]:
        """The blocks that a counted block counts once each; none when its bytes are gone (`fsck` then mends counts)."""
        codec = layout.unpack_entry(value).codec
        data = self._read_block(multihash, value) if codec else None
        return [] if data is None else list(distinct(self._links_of(cid_v1(codec, multihash), data)))

    def _children(self, root: Cid, cid: Cid, multihash: Multihash, value: bytes) -> dict[Multihash, Cid]:
        data = self._read_block(multihash, value)
        if data is None:
            raise _not_whole(root, cid)
        return distinct(self._links_of(cid, data))


def distinct(cids: Iterable[Cid]) -> dict[Multihash, Cid]:
    """Each block of `cids` once, under a codec with links where it has one; identity CIDs are their own bytes."""
    found: dict[Multihash, Cid] = {}
    for cid in cids:
        multihash = multihash_of(cid)
        if multihash[0] != IDENTITY and (multihash not in found or codec_of(found[multihash]) == RAW):
            found[multihash] = cid
    return found


def pend(transaction: Transaction, multihashes: list[Multihash], serial: Iterator[int]) -> None:
    """Queue one decrement for each of `multihashes`."""
    if multihashes:
        transaction.put(layout.PENDING + layout.STAMP.pack(next(serial)), layout.pack_multihashes(multihashes))


def _not_whole(root: Cid, cid: Cid) -> NotFound:
    text = format_cid(cid)
    return NotFound(f"block {text} of DAG {format_cid(root)} is not in the store", subject=text)
