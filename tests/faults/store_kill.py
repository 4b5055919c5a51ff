"""Kill -9 at random points: `python store_kill.py --rounds 200 --seed 1 --directory DIR`.

Each round forks a child whose threads work on the store as fast as they can, each on blobs of its own that share
blocks with those of the others, and tell, over a pipe, what they begin and what was acknowledged. The parent kills it
at a random moment, opens the store, and checks that nothing acknowledged is lost, nothing is corrupt, and fsck is
clean. The store lives through all rounds. Prints one line of JSON.
"""

import argparse
import collections
import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path

from ipcs.cid import multihash_of
from ipcs.errors import NotFound
from ipcs.store.disk import DiskDirectory
from ipcs.store.leveldb import LevelDBDatastore
from ipcs.store.store import Store, StoreOptions
from ipcs.testing.dags import links_of, make_dag

SHARED = [random.Random(f"shared {index}").randbytes(size) for index, size in enumerate((300, 5000, 30_000, 70_000))]
OWNERS = ("containerd", "user/a", "lease/b")
BLOBS = 12
THREADS = 3
LONGEST = 0.05
"""Seconds that a child works at most: some twenty operations."""

AT_OPEN = 0.15
"""Share of children that are killed while they open the store."""


def blob(number):
    """Blob `number`: a few leaves of its own, and some that others have too."""
    source = random.Random(f"blob {number}")
    own = [source.randbytes(source.choice((200, 4096, 20_000, 60_000))) for _ in range(source.randint(1, 30))]
    return make_dag(own + source.sample(SHARED, 2), 5)


def open_it(path):
    # a tiny memtable, so that LevelDB compacts all the time, and small segments, so that they come and go
    datastore = LevelDBDatastore(path / "index", write_buffer_size=64 << 10)
    return Store(datastore, DiskDirectory(path / "blocks"), links_of, StoreOptions(segment_size=1 << 20))


def work(path, seed, say):
    """What the child does until it is killed. Any error ends it by itself, which the parent sees."""
    threading.excepthook = lambda failed: (sys.__excepthook__(*failed[:3]), os._exit(1))
    store = open_it(path)
    for thread in range(THREADS):
        threading.Thread(target=work_in_thread, args=(store, thread, f"{seed} {thread}", say)).start()


def work_in_thread(store, thread, seed, say):
    """One operation after another. Each is announced before and acknowledged after."""
    source = random.Random(seed)
    dags = {number: blob(number) for number in range(thread, BLOBS, THREADS)}
    while True:
        number = source.choice(list(dags))
        owner = source.choice(OWNERS)
        kind = source.choice(("ingest", "ingest", "refer", "drop", "collect", "offset", "fetch"))
        say(f"begin {kind} {number} {owner} {thread}")
        done = perform(store, kind, dags[number], owner, source, b"%d" % thread, number)
        say(f"{'done' if done else 'refused'} {kind} {number} {owner} {thread}")


def perform(store, kind, dag, owner, source, key, number):
    """One operation; whether it was acknowledged. A DAG that a collection has taken meanwhile cannot be referenced."""
    digest = dag.record().digest
    if kind == "ingest":
        with store.hold() as hold:
            for start in range(0, len(dag.blocks), 4):
                hold.put_many(dag.blocks[start : start + 4])
            store.commit_blob(dag.record(), owner)
    elif kind == "fetch":
        store.blocks.put_many(dag.blocks[: source.randint(1, len(dag.blocks))])
    elif kind == "refer":
        try:
            store.references.add(owner, dag.root)
        except NotFound:
            return False
    elif kind == "drop":
        store.references.drop(owner, digest)
        store.references.drop(owner, dag.root)
    elif kind == "collect":
        store.collect(down_to=source.choice((0, 0, 1 << 20)))
    elif kind == "offset":
        store.records.write([(key, number.to_bytes(4, "big"))], sync=True)
    return True


class Books:
    """What the parent knows: the references acknowledged, those in doubt, the offsets that each thread may find."""

    def __init__(self):
        self.held = set()
        self.doubt = {}
        self.offsets = [{None} for _ in range(THREADS)]
        self.done = collections.Counter()

    def read(self, lines):
        """Take in what one child has said."""
        self.doubt = {}
        for line in lines:
            word, kind, number, owner, thread = line.split()
            number, thread = int(number), int(thread)
            touched = self.touched(kind, blob(number), owner)
            self.doubt[thread] = touched if word == "begin" else set()
            if word == "begin" and kind == "offset":
                self.offsets[thread].add(number)
            if word == "done":
                self.done[kind] += 1
                if kind in ("ingest", "refer"):
                    self.held |= touched
                elif kind == "drop":
                    self.held -= touched
                elif kind == "offset":
                    self.offsets[thread] = {number}

    def touched(self, kind, dag, owner):
        """The references that an operation adds or drops."""
        by_digest, by_root = (owner, dag.record().digest), (owner, dag.root)
        return {"ingest": {by_digest}, "refer": {by_root}, "drop": {by_digest, by_root}}.get(kind, set())

    def check(self, store):
        """Raise AssertionError unless `store` keeps every promise; then what was in doubt is known."""
        found = {(at.owner, at.root) for at in store.references.held_by()}
        doubt = set().union(*self.doubt.values())
        assert found ^ self.held <= doubt, f"references differ by {found ^ self.held}, in doubt {doubt}"
        self.held = found
        for number in range(BLOBS):
            dag = blob(number)
            digest = dag.record().digest
            if any(root in (digest, dag.root) for _, root in found):
                keys = [multihash_of(block.cid) for block in dag.blocks]
                for data, block in zip(store.blocks.get_many(keys), dag.blocks, strict=True):
                    assert data is not None, f"a block of held blob {number} is lost"
                    assert bytes(data) == block.data, f"a block of blob {number} lies"
            if any(root == digest for _, root in found):
                assert store.blobs.get(digest) is not None, f"record {number} is lost"
        for thread, expected in enumerate(self.offsets):
            value = store.records.get(b"%d" % thread)
            offset = None if value is None else int.from_bytes(value, "big")
            assert offset in expected, f"offset {offset} is none of {expected}"
            self.offsets[thread] = {offset}
        problems = store.fsck().problems
        assert not problems, problems[:5]


def one_round(path, source):
    """Fork, let it work, kill it; the lines that it said."""
    reading, writing = os.pipe()
    seed = source.getrandbits(64)
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            work(path, seed, lambda line: os.write(writing, line.encode() + b"\n"))
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    said = b"" if source.random() < AT_OPEN else os.read(reading, 65536)
    deadline = time.monotonic() + source.random() * LONGEST * (1 if said else 0.3)
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            said += os.read(reading, 65536)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"the child ended by itself after {said[-200:]!r}"
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    return said.decode().split("\n")[:-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    source = random.Random(options.seed)
    books = Books()
    for number in range(options.rounds):
        last = one_round(options.directory, source)
        books.read(last)
        with open_it(options.directory) as store:
            try:
                books.check(store)
            except AssertionError as exc:
                raise AssertionError(f"seed {options.seed}, round {number}, last: {last[-2:]}: {exc}") from exc
    json.dump({"kills": options.rounds, "done": dict(books.done), "held": len(books.held)}, sys.stdout)


if __name__ == "__main__":
    main()
