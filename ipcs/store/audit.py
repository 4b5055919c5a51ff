"""What the index says about itself, compared with a full walk: the second half of `fsck`.

Everything is derived anew from the roots: the count of each block, who is held, what must be queued. The caller holds
the store's lock, so that writers wait and nothing moves; memory grows by some 200 bytes a counted block.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterator
from typing import NamedTuple

from ..block import Data
from ..cid import RAW, Cid, Multihash, cid_v1, codec_of, format_cid
from . import layout
from .blobs import unpack_blob
from .counts import LinksOf, ReadBlock, distinct
from .datastore import Datastore, Mutation
from .logstore import location
from .references import expiry_key
from .segments import Location


class Problem(NamedTuple):
    """One thing that is wrong with a store: what kind, with which object, in words; and the mutations that mend it.

    Kinds: `corrupt` and `missing` blocks, a `count`, a `queue`, a `reference`, a `record`, `orphan` space.
    """

    kind: str
    subject: str
    message: str
    mend: tuple[Mutation, ...] = ()


class Expected(NamedTuple):
    """What the roots ask for: the count of each block, under which codec its links count, and the blocks not there."""

    counts: Multiset[Multihash]
    codecs: dict[Multihash, int]
    missing: list[Problem]
    is_complete: bool


class Audit:
    """One audit of a store at rest."""

    def __init__(self, datastore: Datastore, links_of: LinksOf, read_block: ReadBlock, serial: Iterator[int]) -> None:
        self._datastore = datastore
        self._links_of = links_of
        self._read_block = read_block
        self._serial = serial
        self._is_complete = True
        self.claimed: list[Location] = []
        """The ranges that entries, the list of freed ranges and the quarantine point at."""

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong, in no particular order. Fills `claimed`."""
        yield from self._records()
        yield from self._references()
        yield from self._unheld()
        expected = self._walk()
        yield from expected.missing
        yield from self._blocks(expected)
        for prefix in (layout.FREED, layout.QUARANTINE):
            for key, value in self._datastore.scan(prefix):
                self.claimed.append(Location(*layout.PLACE.unpack_from(key, 1), *layout.LENGTH.unpack_from(value)))

    def _walk(self) -> Expected:
        """Count as the rule in `counts` says, from the roots and the pending decrements."""
        counts: Multiset[Multihash] = Multiset()
        codecs: dict[Multihash, int] = {}
        missing: list[Problem] = []
        self._is_complete = True
        for _, packed in self._datastore.scan(layout.PENDING):
            counts.update(layout.unpack_multihashes(packed))
        starts = [Cid(key[len(layout.ROOT) :]) for key, _ in self._datastore.scan(layout.ROOT)]
        batches = [(root, distinct([root])) for root in starts]
        batches += self._pending_nodes(counts, codecs)
        while batches:
            root, links = batches.pop()
            counts.update(links.keys())
            values = self._datastore.get_many([layout.BLOCK + multihash for multihash in links])
            for (multihash, cid), value in zip(links.items(), values, strict=True):
                if value is None or layout.is_missing(value):
                    missing.append(_missing(root, cid))
                    self._is_complete &= codec_of(cid) == RAW
                elif codec_of(cid) != RAW and multihash not in codecs:
                    codecs[multihash] = codec_of(cid)
                    batches.append((root, distinct(self._links(cid, multihash, value))))
        return Expected(counts, codecs, missing, self._is_complete)

    def _pending_nodes(
        self, counts: Multiset[Multihash], codecs: dict[Multihash, int]
    ) -> list[tuple[Cid, dict[Multihash, Cid]]]:
        """Nodes whose count consists of pending decrements still count their links."""
        found = []
        for multihash in list(counts):
            value = self._datastore.get(layout.BLOCK + multihash)
            codec = 0 if value is None else layout.unpack_entry(value).codec
            if value is not None and codec and multihash not in codecs:
                codecs[multihash] = codec
                cid = cid_v1(codec, multihash)
                found.append((cid, distinct(self._links(cid, multihash, value))))
        return found

    def _links(self, cid: Cid, multihash: Multihash, value: bytes) -> list[Cid]:
        data: Data | None = self._read_block(multihash, value)
        if data is None:
            self._is_complete = False
            return []
        return self._links_of(cid, data)

    def _blocks(self, expected: Expected) -> Iterator[Problem]:
        queued: set[Multihash] = set()
        for _, value in self._datastore.scan(layout.LOOSE):
            queued.update(layout.unpack_multihashes(value[layout.STAMP.size :]))
        for key, value in self._datastore.scan(layout.BLOCK):
            multihash = Multihash(key[len(layout.BLOCK) :])
            entry = layout.unpack_entry(value)
            at = location(entry)
            if at is not None:
                self.claimed.append(at)
            count, codec = expected.counts[multihash], expected.codecs.get(multihash, 0)
            if not expected.is_complete and entry.counted >= count:
                continue  # under a node that is gone there may be more to count
            if (entry.counted, entry.codec) != (count, codec):
                right = entry._replace(counted=count, codec=codec)
                mend: list[Mutation] = [(key, layout.repack_entry(right, value))]
                if not count:
                    mend.append(self._queue(multihash))
                message = f"is counted {entry.counted} times instead of {count}"
                yield Problem("count", multihash.hex(), message, tuple(mend))
            elif not count and multihash not in queued:
                yield Problem("queue", multihash.hex(), "is loose and not queued", (self._queue(multihash),))

    def _queue(self, multihash: Multihash) -> Mutation:
        return layout.LOOSE + layout.STAMP.pack(next(self._serial)), layout.pack_loose(0, [multihash])

    def _records(self) -> Iterator[Problem]:
        """Each record has its entry by root and a root, and each entry by root its record."""
        wanted = set()
        for key, value in self._datastore.scan(layout.BLOB):
            digest = key[len(layout.BLOB) :]
            record = unpack_blob(digest, value)
            by_root = layout.by_root_prefix(record.root) + digest
            wanted.add(by_root)
            if self._datastore.get(by_root) is None:
                yield Problem("record", record.digest, "has no entry by root", ((by_root, b""),))
            if self._datastore.get(layout.ROOT + record.root) is None:
                yield self._lost_root(record.digest, record.root)
        for key, _ in self._datastore.scan(layout.BY_ROOT):
            if key not in wanted:
                yield Problem("record", key.hex(), "is an entry by root without a record", ((key, None),))

    def _references(self) -> Iterator[Problem]:
        """Each reference has its entries by root and by expiry, and each of these its reference."""
        wanted = set()
        for key, value in self._datastore.scan(layout.BY_OWNER):
            owner, packed_root = layout.split_owner(key[1:])
            root = layout.unpack_root(packed_root)
            keys = [layout.holder_prefix(packed_root) + owner.encode()]
            expires_at = layout.REFERENCE_HEAD.unpack_from(value)[1]
            if expires_at:
                keys.append(expiry_key(expires_at, key))
            wanted.update(keys)
            for absent in keys:
                if self._datastore.get(absent) is None:
                    yield Problem("reference", owner, "is not found by root or expiry", ((absent, b""),))
            if not isinstance(root, str) and self._datastore.get(layout.ROOT + root) is None:
                yield self._lost_root(owner, root)
        for prefix in (layout.BY_HOLDER, layout.EXPIRY):
            for key, _ in self._datastore.scan(prefix):
                if key not in wanted:
                    yield Problem("reference", key.hex(), "points at a reference that is not there", ((key, None),))

    def _unheld(self) -> Iterator[Problem]:
        """Exactly the roots without references stand in the queue of unheld ones."""
        wanted = set()
        for key, stamp in self._datastore.scan(layout.ROOT):
            cid = Cid(key[len(layout.ROOT) :])
            names = [layout.pack_root(cid)]
            prefix = layout.by_root_prefix(cid)
            names += [b"d" + by_root[len(prefix) :] for by_root, _ in self._datastore.scan(prefix)]
            if not any(self._any(layout.holder_prefix(name)) for name in names):
                wanted.add(layout.UNHELD + stamp + cid)
        for key, _ in self._datastore.scan(layout.UNHELD):
            if key not in wanted:
                yield Problem("queue", key.hex(), "is queued for collection and held", ((key, None),))
            wanted.discard(key)
        for key in sorted(wanted):
            yield Problem("queue", format_cid(layout.split_stamp(key)[1]), "is cache and not queued", ((key, b""),))

    def _lost_root(self, subject: str, root: Cid) -> Problem:
        stamp = layout.STAMP.pack(0)
        return Problem("record", subject, f"has no root {format_cid(root)}", ((layout.ROOT + root, stamp),))

    def _any(self, prefix: bytes) -> bool:
        return next(iter(self._datastore.scan(prefix)), None) is not None


def _missing(root: Cid, cid: Cid) -> Problem:
    text = format_cid(cid)
    return Problem("missing", text, f"belongs to DAG {format_cid(root)} and is not in the store: fetch it again")
