"""Ingests against a model that keeps the bytes of each ref: whatever is done in whatever order, restarts in between."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipcs import errors
from ipcs.content.store import ContentStore
from ipcs.store.store import memory_store
from ipcs.testing.content_steps import sha256_digest
from ipcs.unixfs.profile import Profile
from ipcs.unixfs.walk import links_of

TINY = Profile("tiny", chunker="size-16", max_links=2)
"""A few bytes are many leaves and levels."""

REFS = st.sampled_from(["one", "two"])
CHUNKS = st.binary(min_size=1, max_size=40) | st.integers(300, 400).map(lambda size: (bytes(range(256)) * 2)[:size])
"""Some pieces are more leaves than a restart reads at once."""


class IngestMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="ipcs-ingest-"))
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.directory)
        self.store = self.stack.enter_context(memory_store(links_of))
        self.content = ContentStore(self.store, self.directory, TINY)
        self.open = {}
        self.blobs = {}

    def writer(self, ref, **declared):
        """After a restart a ref is locked until it is hashed again."""
        end = time.monotonic() + 5
        while True:
            try:
                return self.content.writer(ref, **declared)
            except errors.Unavailable:
                assert time.monotonic() < end, "locked for ever"
                time.sleep(0.0005)

    @rule(ref=REFS, chunks=st.lists(CHUNKS, max_size=3))
    def write(self, ref, chunks):
        with self.writer(ref) as writer:
            data = self.open.setdefault(ref, b"")
            assert writer.status().offset == len(data), "resumes at the byte"
            for chunk in chunks:
                writer.write(chunk)
                data += chunk
                assert writer.status().digest == sha256_digest(data)
            self.open[ref] = data

    @rule(ref=REFS, chunk=CHUNKS)
    def start_over(self, ref, chunk):
        with self.writer(ref) as writer:
            writer.seek(0)
            writer.write(chunk)
            self.open[ref] = chunk

    @rule(ref=REFS, off=st.integers(1, 200))
    def write_elsewhere(self, ref, off):
        with self.writer(ref) as writer:
            here = len(self.open.setdefault(ref, b""))
            if off != here:
                with pytest.raises(errors.OutOfRange):
                    writer.seek(off)

    @rule(ref=REFS, wrong=st.sampled_from(["size", "digest"]))
    def commit_of_something_else(self, ref, wrong):
        with self.writer(ref) as writer:
            data = self.open.setdefault(ref, b"")
            size = len(data) + 1 if wrong == "size" else len(data)
            digest = sha256_digest(data + b"!") if wrong == "digest" else sha256_digest(data)
            with pytest.raises(errors.FailedPrecondition):
                writer.commit(size, digest)

    @rule(ref=REFS)
    def commit(self, ref):
        with self.writer(ref) as writer:
            data = self.open.pop(ref, b"")
            digest = sha256_digest(data)
            if digest in self.blobs:
                with pytest.raises(errors.AlreadyExists):
                    writer.commit(len(data), digest)
            else:
                assert writer.commit(len(data), digest).size == len(data)
            self.blobs[digest] = data

    @rule(ref=REFS)
    def abort(self, ref):
        if self.open.pop(ref, None) is not None:
            self.writer(ref).close()
            self.content.abort(ref)
        else:
            with pytest.raises(errors.NotFound):
                self.content.abort(ref)

    @rule()
    def restart(self):
        self.content.close()
        self.content = ContentStore(self.store, self.directory, TINY)
        for ref in self.open:  # until it is hashed again, its status says nothing
            self.writer(ref).close()

    @invariant()
    def agrees(self):
        assert {status.ref: status.offset for status in self.content.list_statuses()} == {
            ref: len(data) for ref, data in self.open.items()
        }
        assert {info.digest for info in self.content.walk()} == set(self.blobs)
        for digest, data in self.blobs.items():
            assert b"".join(map(bytes, self.content.reader(digest).read(0, len(data)))) == data

    def teardown(self):
        self.content.close()
        self.stack.close()
