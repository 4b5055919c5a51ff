"""gRPC face of the content store: `containerd.services.content.v1.Content`, spoken as containerd's own server does.

Everything local is answered in the server's thread. Bytes in, bytes out: messages are hand-written (`wire.py`), since
unpack sends one Read for every 32 KiB and each must cost microseconds.

Source: containerd services/content/contentserver/contentserver.go.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial

from ..errors import InvalidArgument, NotFound, OutOfRange
from ..rpc.bridge import Bridge
from ..rpc.call import Call, Methods, duplex, streaming, unary
from ..store.store import Store
from . import wire
from .adoption import Adoption, Mode
from .arrival import Arrival
from .descriptor import Info
from .ingests import Writer
from .manifest import MAX_MANIFEST
from .statistics import AdoptionStatistics
from .store import ContentStore
from .wire import WriteAction, WriteRequest

READ_CHUNK = 1024 * 1024
"""Bytes in one Read answer: larger ones are no faster, smaller ones cost calls."""

PARSED = 4096
"""Small blobs remembered as looked into."""

QUICK_READ = 64 * 1024
"""Bytes of a Read that is answered in the thread that reads the connection: unpack asks for 32 KiB at a time."""

QUICK_WRITE = 64 * 1024
"""Bytes of a Write that is taken there: ctr of containerd 2.x writes 32 KiB at a time, and asks STAT before each."""

LIST_CHUNK = 256 * 1024
"""Bytes in one List answer."""


class ContentService:
    """The handlers. All run in server threads."""

    def __init__(
        self,
        content: ContentStore,
        store: Store | None = None,
        mode: Mode = Mode.OFF,
        adoption: Adoption | None = None,
        counts: AdoptionStatistics | None = None,
    ) -> None:
        """`store` and `counts` are needed for a `mode` other than off, `adoption` for swarm."""
        self._content = content
        self._store = store
        self._mode = mode
        self._adoption = adoption
        self._counts = counts or AdoptionStatistics()
        self._parsed: OrderedDict[str, None] = OrderedDict()
        self._bridge: Bridge

    def handlers(self, bridge: Bridge) -> Methods:
        """The methods for `ipcs.rpc.server.serve`."""
        self._bridge = bridge
        methods = {
            "Info": unary(self.info, self._info_at_once),
            "Update": unary(self.update),
            "Delete": unary(self.delete),
            "Status": unary(self.status),
            "ListStatuses": unary(self.list_statuses),
            "Abort": unary(self.abort),
            "List": streaming(self.list),
            "Read": streaming(self.read, self._read_at_once),
            "Write": duplex(self.write),
        }
        return {f"/{wire.SERVICE}/{name}": method for name, method in methods.items()}

    def _info_at_once(self, request: bytes) -> bytes | None:
        """Of a blob that containerd knows already; any other may have to be looked for."""
        try:
            return wire.encode_info(self._content.info(wire.decode_digest_request(request)))
        except NotFound:
            if self._mode is Mode.OFF:
                raise
            return None

    def _read_at_once(self, request: bytes) -> bytes | None:
        """A short window of a blob that is whole here."""
        wanted = wire.decode_read_request(request)
        if not 0 < wanted.size <= QUICK_READ or wanted.offset <= 0:
            return None  # the first window opens the blob, and may show a manifest
        if self._adoption is not None and self._adoption.arriving(wanted.digest) is not None:
            return None
        blob = self._content.reader(wanted.digest)
        offset, end = _window(wanted, blob.size)
        return wire.encode_read(offset, blob.read(offset, end - offset)) if offset < end else None

    def info(self, request: bytes, call: Call) -> bytes:
        digest = wire.decode_digest_request(request)
        try:
            info = self._content.info(digest)
        except NotFound:
            if self._mode is Mode.OFF:
                raise
            began = time.perf_counter()
            info = self._adopt(digest, call)
            self._counts.info_seconds.append(time.perf_counter() - began)
        return wire.encode_info(info)

    def _adopt(self, digest: str, call: Call) -> Info:
        """Show containerd a blob that it did not write, if there is one."""
        info = self._adopt_local(digest)
        if info is None and self._adoption is not None:
            self._bridge.run(call, self._adoption.seek, digest)
            info = self._adopt_local(digest)
        if info is None:
            return self._content.info(digest)  # a promise, or not found
        return info

    def _adopt_local(self, digest: str) -> Info | None:
        """From the blobs that are whole here."""
        assert self._store is not None
        record = self._store.blobs.get(digest)
        if record is None or not record.verified:
            return None
        info = self._content.commit(record, {})
        self._counts.adopted += 1
        if record.size <= MAX_MANIFEST:
            self._look_inside(digest)
        return info

    def _look_inside(self, digest: str) -> None:
        """A small blob was written, adopted or read: if it is a manifest, its children will be asked for next."""
        if self._adoption is None or digest in self._parsed:
            return
        blob = self._content.reader(digest)
        self._adoption.manifest_seen(digest, b"".join(blob.read(0, blob.size)))
        self._parsed[digest] = None
        while len(self._parsed) > PARSED:
            self._parsed.popitem(last=False)

    def update(self, request: bytes, _call: Call) -> bytes:
        info, paths = wire.decode_update_request(request)
        return wire.encode_info(self._content.update(info, *paths))

    def delete(self, request: bytes, _call: Call) -> bytes:
        digest = wire.decode_digest_request(request)
        self._content.delete(digest)
        if self._adoption is not None:
            self._adoption.deleted(digest)
        return b""

    def status(self, request: bytes, _call: Call) -> bytes:
        return wire.encode_status(self._content.status(wire.decode_digest_request(request)))

    def list_statuses(self, request: bytes, _call: Call) -> bytes:
        return b"".join(map(wire.encode_status, self._content.list_statuses(wire.decode_filters(request))))

    def abort(self, request: bytes, _call: Call) -> bytes:
        self._content.abort(wire.decode_digest_request(request))
        return b""

    def list(self, request: bytes, _call: Call) -> Generator[bytes, None, None]:
        yield from wire.encode_list(self._content.walk(wire.decode_filters(request)), LIST_CHUNK)

    def read(self, request: bytes, call: Call) -> Generator[bytes, None, None]:
        wanted = wire.decode_read_request(request)
        arrival = self._adoption.arriving(wanted.digest) if self._adoption is not None else None
        if arrival is not None:
            yield from self._read_arriving(arrival, wanted, call)
            return
        blob = self._content.reader(wanted.digest)
        offset, end = _window(wanted, blob.size)
        if not wanted.offset and blob.size <= MAX_MANIFEST:
            self._look_inside(wanted.digest)
        while offset < end:
            size = min(READ_CHUNK, end - offset)
            yield wire.encode_read(offset, blob.read(offset, size))
            offset += size

    def _read_arriving(self, arrival: Arrival, wanted: wire.ReadRequest, call: Call) -> Generator[bytes, None, None]:
        """Read a promised blob, waiting for its bytes."""
        offset, end = _window(wanted, arrival.size)
        with call.on_cancel(arrival.wake):
            while offset < end:
                parts = arrival.read(offset, min(READ_CHUNK, end - offset), lambda: not call.is_active())
                if not parts:
                    return
                yield wire.encode_read(offset, parts)
                offset += sum(map(len, parts))

    def write(self, requests: Iterable[bytes], call: Call) -> Generator[bytes, None, None]:
        messages = map(wire.decode_write_request, requests)
        first = next(iter(messages), None)
        if first is None:
            return
        with self._content.writer(first.ref, first.total, first.expected) as writer:
            yield self._answer(writer, first)
            call.quick = partial(self._write_at_once, writer)
            for message in messages if first.action is not WriteAction.COMMIT else ():
                yield self._go_on(writer, message)
                if message.action is WriteAction.COMMIT:
                    return

    def _write_at_once(self, writer: Writer, request: bytes) -> bytes | None:
        """What costs no more than a few pages of the file cache."""
        if len(request) > QUICK_WRITE:
            return None
        message = wire.decode_write_request(request)
        if message.action is WriteAction.COMMIT or writer.is_syncing(len(message.data)):
            return None
        return self._go_on(writer, message)

    def _go_on(self, writer: Writer, message: WriteRequest) -> bytes:
        if message.ref and message.ref != writer.ref:
            raise InvalidArgument(f"a write stream for ref {writer.ref} cannot turn to {message.ref}")
        writer.declare(message.total, message.expected)
        return self._answer(writer, message)

    def _answer(self, writer: Writer, message: WriteRequest) -> bytes:
        """Do what one message of a Write stream asks."""
        if message.action is WriteAction.STAT:
            return wire.encode_write(WriteAction.STAT, writer.status())
        writer.seek(message.offset)
        if message.data:
            writer.write(message.data)
        status = writer.status()
        if message.action is WriteAction.COMMIT:
            info = writer.commit(status.total, status.expected, message.labels)
            if info.size <= MAX_MANIFEST:
                self._look_inside(info.digest)
            status = replace(status, offset=info.size, digest=info.digest, updated_at=info.updated_at)
        return wire.encode_write(message.action, status)


def _window(wanted: wire.ReadRequest, size: int) -> tuple[int, int]:
    """(first byte, byte behind the last) of what a Read asks of a blob of `size` bytes."""
    if wanted.offset < 0 or wanted.size < 0:
        raise InvalidArgument(f"cannot read {wanted.size} bytes at {wanted.offset} of {wanted.digest}")
    if wanted.offset > size:
        raise OutOfRange(f"read past object length {size} bytes of {wanted.digest}", subject=wanted.digest)
    return wanted.offset, min(wanted.offset + wanted.size, size) if wanted.size else size
