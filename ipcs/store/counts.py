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

from collections.abc import Callable, Iterator

from ..block import Data
from ..cid import IDENTITY, RAW, Cid, Multihash, cid_v1, codec_of, format_cid, multihash_of
from ..errors import NotFound
from . import layout
from .datastore import Transaction

LinksOf = Callable[[Cid, Data], list[Cid]]
"""The links of a block, in order. Raises `IpcsError` when it is malformed; must answer [] for codecs without links."""

ReadBlock = Callable[[Multihash, layout.Entry, bytes], Data]
"""The bytes of a block from its entry and the packed form of that."""


class Counter:
    """Adds and drops counts inside a `Transaction`; holds no state of its own."""

    def __init__(self, links_of: LinksOf, read_block: ReadBlock) -> None:
        self._links_of = links_of
        self._read_block = read_block

    def add(self, transaction: Transaction, root: Cid) -> None:
        """Count the DAG under `root`. Raises `NotFound` naming the first block that the store does not hold."""
        stack = [root]
        while stack:
            cid = stack.pop()
            multihash = multihash_of(cid)
            if multihash[0] == IDENTITY:
                continue
            key = layout.BLOCK + multihash
            value = transaction.get(key)
            entry = None if value is None else layout.unpack_entry(value)
            if value is None or entry is None or entry.segment == layout.MISSING:
                raise NotFound(
                    f"block {format_cid(cid)} of DAG {format_cid(root)} is not in the store", subject=format_cid(cid)
                )
            codec = codec_of(cid)
            if codec != RAW and not entry.codec:
                stack.extend(dict.fromkeys(self._links_of(cid, self._read_block(multihash, entry, value))))
                entry = entry._replace(codec=codec)
            transaction.put(key, layout.repack_entry(entry._replace(count=entry.count + 1), value))

    def links(self, multihash: Multihash, entry: layout.Entry, value: bytes) -> list[Multihash]:
        """The blocks that `entry` counts once each."""
        if not entry.codec:
            return []
        cid = cid_v1(entry.codec, multihash)
        links = dict.fromkeys(self._links_of(cid, self._read_block(multihash, entry, value)))
        return [child for child in map(multihash_of, links) if child[0] != IDENTITY]


def pend(transaction: Transaction, multihashes: list[Multihash], serial: Iterator[int]) -> None:
    """Queue one decrement for each of `multihashes`, under a fresh key from `serial`."""
    if multihashes:
        transaction.put(layout.PENDING + layout.STAMP.pack(next(serial)), layout.pack_multihashes(multihashes))
