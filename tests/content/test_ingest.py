"""The ingest state machine and its journal: every crash point, every cut, resumed at the right byte."""

import contextlib
import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcs.block import make_block
from ipcs.content.ingest import Ingest
from ipcs.content.journal import Journal, Saved, journals
from ipcs.errors import FailedPrecondition, OutOfRange
from ipcs.unixfs.profile import Profile

LEAF = 8


TINY = Profile(chunker="size-8")


class TinyLeaves:
    """A model of an importer of 8-byte leaves whose root is just the hash of everything."""

    def __init__(self):
        self.buffer = b""
        self.seen = hashlib.sha256()

    def feed(self, data):
        self.seen.update(data)
        self.buffer += bytes(data)
        whole = len(self.buffer) - len(self.buffer) % LEAF
        leaves = [make_block(self.buffer[at : at + LEAF]) for at in range(0, whole, LEAF)]
        self.buffer = self.buffer[whole:]
        return leaves

    def finish(self):
        return [make_block(self.buffer)], make_block(self.seen.digest()).cid


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_status_follows_the_bytes():
    ingest = Ingest("r", TINY, 10, total=20)
    assert ingest.status().digest == sha(b"")
    blocks = ingest.write(b"0123456789", 15)
    assert [block.data for block in blocks] == [b"01234567"]
    status = ingest.status()
    assert (status.offset, status.total, status.started_at, status.updated_at) == (10, 20, 10, 15)
    assert status.digest == sha(b"0123456789")


def test_only_the_current_offset_or_zero():
    ingest = Ingest("r", TINY, 1)
    ingest.write(b"abc", 2)
    with pytest.raises(OutOfRange, match="@2 must occur at current offset 3"):
        ingest.seek(2, 3)
    assert not ingest.seek(3, 4)
    assert ingest.updated_at == 2
    assert ingest.seek(0, 5)
    assert (ingest.offset, ingest.digest(), ingest.started_at, ingest.updated_at) == (0, sha(b""), 1, 5)


def test_commit_checks_keep_the_ingest():
    ingest = Ingest("r", TINY, 1)
    ingest.write(b"abc", 2)
    with pytest.raises(FailedPrecondition, match="unexpected commit size 3, expected 4"):
        ingest.check(4, "")
    with pytest.raises(FailedPrecondition, match="unexpected commit digest"):
        ingest.check(3, sha(b"abd"))
    ingest.write(b"d", 3)
    assert ingest.check(4, sha(b"abcd")) == sha(b"abcd")
    assert ingest.check(0, "")


def test_a_built_ingest_can_be_committed_again_but_not_written():
    ingest = Ingest("r", TINY, 1)
    ingest.write(b"abc", 2)
    assert ingest.build() is ingest.build()
    with pytest.raises(FailedPrecondition, match="being committed"):
        ingest.write(b"d", 3)
    ingest.seek(0, 4)
    ingest.write(b"d", 5)
    assert ingest.digest() == sha(b"d")


def test_reopening_with_another_total_is_refused():
    ingest = Ingest("r", TINY, 1, total=5)
    ingest.reopen(0, "")
    ingest.reopen(5, sha(b"x"))
    assert ingest.expected == sha(b"x")
    with pytest.raises(FailedPrecondition, match="total 6"):
        ingest.reopen(6, "")


# ---- the journal


def write(journal, importer, stored, data, now):
    """One WRITE as the store does it: leaves, then journal."""
    behind = len(importer.buffer)
    leaves = importer.feed(data)
    stored.update({block.cid[2:]: block.data for block in leaves})
    tail = (behind + len(data)) - LEAF * len(leaves) if leaves else len(data)
    journal.append([block.cid[2:] for block in leaves], data[len(data) - tail :], now)


def resume(root, ref, stored):
    journal = Journal(root, ref)
    saved = journal.load()
    found = []
    for leaf in saved.leaves:
        if leaf not in stored:
            break
        found.append(stored[leaf])
    data = b"".join(found) + journal.resume(len(found), saved.updated_at)
    return journal, saved, data


@settings(deadline=None)
@given(writes=st.lists(st.binary(max_size=30), max_size=8), more=st.binary(max_size=30))
def test_resumes_at_the_exact_byte(tmp_path_factory, writes, more):
    root = tmp_path_factory.mktemp("j")
    journal, importer, stored = Journal(root, "a/ref"), TinyLeaves(), {}
    journal.begin("a/ref", 100, "e", 5)
    for now, data in enumerate(writes, 10):
        write(journal, importer, stored, data, now)
    journal.close()
    again, saved, data = resume(root, "a/ref", stored)
    assert data == b"".join(writes)
    assert (saved.ref, saved.total, saved.expected, saved.started_at) == ("a/ref", 100, "e", 5)
    assert saved.updated_at == (9 + len(writes) if writes else 5)
    importer = TinyLeaves()
    importer.feed(data)
    write(again, importer, stored, more, 99)
    again.close()
    last, _, data = resume(root, "a/ref", stored)
    assert data == b"".join(writes) + more
    last.drop()
    assert list(root.iterdir()) == []


class KilledError(Exception):
    """The process died here."""


def crash_after(monkeypatch, calls):
    """Die before the n-th change of the file system that the journal makes."""
    left = [calls]

    def wrap(module, name):
        real = getattr(module, name)

        def dying(*args, **kwargs):
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, dying)

    from pathlib import Path

    wrap(os, "write")
    wrap(os, "utime")
    wrap(Path, "unlink")


@pytest.mark.parametrize("first", [b"", b"abc", b"x" * 8, b"y" * 13])
@pytest.mark.parametrize("second", [b"def", b"z" * 5, b"w" * 8, b"v" * 21])
@pytest.mark.parametrize("calls", range(4))
def test_a_crash_in_a_write_leaves_the_state_before_or_after(tmp_path, monkeypatch, first, second, calls):
    journal, importer, stored = Journal(tmp_path, "r"), TinyLeaves(), {}
    journal.begin("r", 0, "", 1)
    write(journal, importer, stored, first, 2)
    with monkeypatch.context() as patch:
        crash_after(patch, calls)
        with contextlib.suppress(KilledError):
            write(journal, importer, stored, second, 3)
    journal.close()
    _, _, data = resume(tmp_path, "r", stored)
    assert data in (first, first + second)


@given(data=st.data())
@settings(deadline=None)
def test_power_loss_shortens_but_never_lies(tmp_path_factory, data):
    """Any file cut or zeroed from any point, any block missing: what is resumed is a prefix."""
    root = tmp_path_factory.mktemp("j")
    journal, importer, stored = Journal(root, "r"), TinyLeaves(), {}
    journal.begin("r", 0, "", 1)
    written = data.draw(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6))
    for part in written:
        write(journal, importer, stored, part, 2)
    journal.close()
    files = sorted(path for path in journal.path.iterdir() if path.name != "header")
    victim = data.draw(st.sampled_from(files))
    raw = victim.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    victim.write_bytes(raw[:at] + (bytes(len(raw) - at) if data.draw(st.booleans()) else b""))
    if stored and data.draw(st.booleans()):
        del stored[data.draw(st.sampled_from(sorted(stored)))]
    _, _, found = resume(root, "r", stored)
    assert b"".join(written).startswith(found)


def test_journals_are_listed_and_remains_removed(tmp_path):
    assert journals(tmp_path / "absent") == []
    for ref in ("a", "b/c:d@e"):
        Journal(tmp_path, ref).begin(ref, 9, "e", 1)
    (tmp_path / "remains").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "header").write_text("{")
    found = sorted(journals(tmp_path), key=lambda saved: saved.ref)
    assert found == [Saved(ref, 9, "e", 1, 1, ()) for ref in ("a", "b/c:d@e")]
    assert len(list(tmp_path.iterdir())) == 2


def test_sync_reaches_every_file(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "r")
    journal.begin("r", 0, "", 1)
    journal.append([], b"tail", 2)
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    journal.sync()
    names = {path.rpartition("/")[2] for path in synced}
    assert {"leaves", "tail.0", "header", journal.path.name} <= names
    journal.drop()
