"""What a hostile writer may put into a DAG: each ends in a named error, in bounded time and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ipcs.block import Block, make_block
from ipcs.blockservice import LocalBlocks
from ipcs.cid import DAG_CBOR, DAG_PB, RAW, Cid, cid_v1, write_varint
from ipcs.errors import InvalidArgument, IpcsError, LimitExceeded, MalformedBlock, NotFound
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.unixfs import dag_pb, hamt, node
from ipcs.unixfs.budget import Budget
from ipcs.unixfs.dag_pb import Link
from ipcs.unixfs.exporter import read, read_stored
from ipcs.unixfs.node import Attributes, Kind, UnixFS
from ipcs.unixfs.resolve import entries, parse_path, resolve, stat
from ipcs.unixfs.traverse import list_directory, traverse
from ipcs.unixfs.walk import dag_stat, fetch_dag, links_of, walk


class Dag:
    """A store to build a DAG in by hand, and a source over it."""

    def __init__(self) -> None:
        self.store = MemoryBlockstore()
        self.source = LocalBlocks(self.store)

    def put(self, data: bytes, codec: int = DAG_PB) -> Cid:
        block = make_block(data, codec)
        self.store.put_many([block])
        return block.cid

    def node(self, message: UnixFS | bytes | None, links: list[Link] = []) -> Cid:  # noqa: B006 - never changed
        data = node.encode(message) if isinstance(message, UnixFS) else message
        return self.put(dag_pb.encode_trusted(links, data))

    def file(self, children: list[tuple[Cid, int]], **changes: Any) -> Cid:
        sizes = [size for _, size in children]
        message = UnixFS(Kind.FILE, filesize=sum(sizes), blocksizes=sizes)._replace(**changes)
        return self.node(message, [Link(cid, b"", size) for cid, size in children])

    def directory(self, children: list[tuple[bytes, Cid]]) -> Cid:
        return self.node(UnixFS(Kind.DIRECTORY), [Link(cid, name, 0) for name, cid in children])


async def drain(items: AsyncIterator[Any]) -> int:
    count = 0
    async for _ in items:
        count += 1
    return count


def chain(dag: Dag, depth: int) -> Cid:
    cid = dag.put(b"x", RAW)
    for _ in range(depth):
        cid = dag.file([(cid, 1)])
    return cid


@pytest.mark.slow
async def test_a_chain_of_100_000_nodes_is_followed_without_recursion() -> None:
    dag = Dag()
    root = chain(dag, 100_000)
    patient = Budget(depth=200_000)
    assert await fetch_dag(dag.source, root, patient) == 100_001
    assert await drain(walk(dag.source, [root], patient)) == 100_001
    assert [bytes(piece) async for piece in read(dag.source, root, budget=patient)] == [b"x"]
    for attempt in (fetch_dag(dag.source, root), drain(walk(dag.source, [root])), drain(read(dag.source, root))):
        with pytest.raises(LimitExceeded, match="depth budget of 256"):
            await attempt


async def test_nested_directories_meet_the_depth_budget() -> None:
    dag = Dag()
    cid = dag.directory([])
    for _ in range(5000):
        cid = dag.directory([(b"d", cid)])
    with pytest.raises(LimitExceeded, match="depth budget"):
        await drain(traverse(dag.source, cid))
    with pytest.raises(InvalidArgument, match="5000 names"):
        parse_path("/".join(["bafkqaaa"] + ["d"] * 5000))
    assert await resolve(dag.source, cid, [b"d"] * 1000)


def bomb(dag: Dag, leaf: Cid, size: int, levels: int = 10) -> Cid:
    """One leaf linked 174 times over some levels."""
    for _ in range(levels):
        leaf, size = dag.file([(leaf, size)] * 174), size * 174
        if size >= 1 << 63:
            break
    return leaf


async def test_zip_bomb_of_one_leaf() -> None:
    dag = Dag()
    root = bomb(dag, dag.put(b"0" * 100, RAW), 100, levels=6)  # 2.7 PB in 60 kB
    with pytest.raises(LimitExceeded, match="size budget of 1000000 bytes"):
        await drain(read(dag.source, root, budget=Budget(size=1_000_000)))
    with pytest.raises(LimitExceeded, match="blocks budget of 10000 blocks"):
        await drain(read(dag.source, root, budget=Budget(blocks=10_000)))
    assert b"".join(read_stored(dag.store, root, 10**15, 5)) == b"00000"
    assert await fetch_dag(dag.source, root) == 7  # distinct blocks are few, whatever the paths
    assert (await dag_stat(dag.source, [root])).unique_blocks == 7


async def test_zip_bomb_of_empty_files_costs_nothing() -> None:
    dag = Dag()
    root = bomb(dag, dag.node(UnixFS(Kind.FILE, filesize=0)), 0)
    assert await drain(read(dag.source, root)) == 0


async def test_sizes_that_overflow() -> None:
    dag = Dag()
    root = bomb(dag, dag.put(b"0" * 100, RAW), 100, levels=12)
    with pytest.raises(MalformedBlock, match="parts sum up"):
        await drain(read(dag.source, root, budget=Budget(size=1)))
    huge = dag.file([(dag.put(b"x", RAW), 1 << 63)])
    with pytest.raises(MalformedBlock, match="parts sum up"):
        await drain(read(dag.source, huge))


async def test_directory_bomb() -> None:
    dag = Dag()
    cid = dag.directory([(b"f", dag.put(b"x", RAW))])
    for _ in range(10):
        cid = dag.directory([(f"{number:03}".encode(), cid) for number in range(174)])
    with pytest.raises(LimitExceeded, match="blocks budget of 2000"):
        await drain(traverse(dag.source, cid, Budget(blocks=2000)))
    assert await drain(list_directory(dag.source, cid)) == 174


def lying(change: Callable[[Dag, Cid], Cid]) -> Any:
    return pytest.param(change, id=change.__name__)


def leaf_longer_than_declared(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 3), (leaf, 4)])


def leaf_shorter_than_declared(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 5), (leaf, 4)])


def filesize_too_small(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 4), (leaf, 4)], filesize=7)


def filesize_too_large(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 4)], filesize=1 << 62)


def inner_node_lies_to_its_parent(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(dag.file([(leaf, 4)]), 5)])


def fewer_sizes_than_links(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 4), (leaf, 4)], blocksizes=[8], filesize=8)


def no_sizes(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(leaf, 4)], blocksizes=[], filesize=0)


def named_link_in_a_file(dag: Dag, leaf: Cid) -> Cid:
    return dag.node(UnixFS(Kind.FILE, filesize=4, blocksizes=[4]), [Link(leaf, b"name", 4)])


def directory_in_a_file(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(dag.directory([(b"x", leaf)]), 4)])


def symlink_in_a_file(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(dag.node(UnixFS(Kind.SYMLINK, b"abcd")), 4)])


def cbor_in_a_file(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(dag.put(b"\x81\x02", DAG_CBOR), 2)])


def no_unixfs_in_a_file(dag: Dag, leaf: Cid) -> Cid:
    return dag.file([(dag.node(None), 4)])


LIES = [
    leaf_longer_than_declared,
    leaf_shorter_than_declared,
    filesize_too_small,
    filesize_too_large,
    inner_node_lies_to_its_parent,
    fewer_sizes_than_links,
    no_sizes,
    named_link_in_a_file,
    directory_in_a_file,
    symlink_in_a_file,
    cbor_in_a_file,
    no_unixfs_in_a_file,
]


@pytest.mark.parametrize("lie", [lying(lie) for lie in LIES])
async def test_lying_file(lie: Callable[[Dag, Cid], Cid]) -> None:
    dag = Dag()
    root = lie(dag, dag.put(b"data", RAW))
    with pytest.raises(MalformedBlock):
        await drain(read(dag.source, root))


async def test_a_lie_does_not_shift_a_range() -> None:
    dag = Dag()
    long, good = dag.put(b"longer", RAW), dag.put(b"good", RAW)
    root = dag.file([(long, 3), (good, 4)])
    assert b"".join(read_stored(dag.store, root, 3, 4)) == b"good"  # the lie is outside the range: not even read
    with pytest.raises(MalformedBlock, match="holds 6 bytes, its parent declares 3"):
        b"".join(read_stored(dag.store, root, 2, 2))


async def test_reading_what_is_no_file() -> None:
    dag = Dag()
    for root, words in (
        (dag.directory([]), "directory, not a file"),
        (dag.node(UnixFS(Kind.SYMLINK, b"x")), "symlink, not a file"),
        (dag.put(b"\xa0", DAG_CBOR), "codec 0x71"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            await drain(read(dag.source, root))
    with pytest.raises(InvalidArgument, match="not a directory"):
        await drain(entries(dag.source, dag.file([])))
    with pytest.raises(InvalidArgument, match="not UnixFS"):
        await drain(entries(dag.source, dag.put(b"x", RAW)))
    with pytest.raises(InvalidArgument, match="is a file, not a directory"):
        await resolve(dag.source, dag.put(b"x", RAW), [b"a"])
    with pytest.raises(MalformedBlock, match="4097 bytes of target"):
        await stat(dag.source, dag.node(UnixFS(Kind.SYMLINK, b"x" * 4097)))
    with pytest.raises(MalformedBlock, match="1 links"):
        await stat(dag.source, dag.node(UnixFS(Kind.SYMLINK, b"x"), [Link(dag.put(b"x", RAW))]))


def shard(dag: Dag, names: dict[bytes, Cid], **changes: Any) -> Cid:
    place = hamt.placement(256)
    buckets = {place.bucket(hamt.name_hash(name), 0): (name, cid) for name, cid in names.items()}
    bits = sum(1 << bucket for bucket in buckets)
    message = UnixFS(Kind.HAMT_SHARD, bits.to_bytes(32, "big").lstrip(b"\0"), hash_type=0x22, fanout=256)
    links = [Link(cid, place.label(bucket) + name, 1) for bucket, (name, cid) in sorted(buckets.items())]
    links = changes.pop("links", links)
    return dag.node(message._replace(**changes), links)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({"fanout": fanout}, "fanout") for fanout in (None, 0, 1, 4, 7, 100, 2048, 1 << 40)),
        ({"hash_type": 0x12}, "hash 18"),
        ({"hash_type": None}, "hash None"),
        ({"data": b"\x01" * 33}, "bitfield of 33 bytes"),
        ({"data": b"\x00" * 40 + b"\x01"}, "bitfield of 41 bytes"),
        ({"data": b"\xff"}, "1 links and 8 bits"),
        ({"data": b""}, "1 links and 0 bits"),
        ({"links": []}, "0 links and 1 bits"),
        ({"links": [Link(Cid(b"\x12\x20" + bytes(32)), b"A", 1)]}, "stands for bucket"),
        ({"links": [Link(Cid(b"\x12\x20" + bytes(32)), b"", 1)]}, "stands for bucket"),
        ({"links": [Link(Cid(b"\x12\x20" + bytes(32)), b"zzname", 1)]}, "stands for bucket"),
    ],
    ids=str,
)
async def test_malformed_shard(changes: dict[str, Any], words: str) -> None:
    dag = Dag()
    root = shard(dag, {b"name": dag.put(b"x", RAW)}, **changes)
    for attempt in (drain(entries(dag.source, root)), resolve(dag.source, root, [b"name"])):
        with pytest.raises(MalformedBlock, match=words):
            await attempt


async def test_a_name_in_the_wrong_bucket_is_refused() -> None:
    dag = Dag()
    place, leaf = hamt.placement(256), dag.put(b"x", RAW)
    wrong = (place.bucket(hamt.name_hash(b"name"), 0) + 1) % 256
    bits = (1 << wrong).to_bytes(32, "big").lstrip(b"\0")
    message = UnixFS(Kind.HAMT_SHARD, bits, hash_type=0x22, fanout=256)
    root = dag.node(message, [Link(leaf, place.label(wrong) + b"name", 1)])
    with pytest.raises(MalformedBlock, match="wrong bucket"):
        await drain(entries(dag.source, root))
    with pytest.raises(NotFound, match="no link named 'name'"):
        await resolve(dag.source, root, [b"name"])


def shard_chain(dag: Dag, name: bytes, levels: int, cid: Cid) -> Cid:
    """`levels` shards above `cid`, each with the one child that leads to `name`."""
    place = hamt.placement(256)
    for depth in reversed(range(levels)):
        bucket = place.bucket(hamt.name_hash(name), depth) if depth < 8 else 0
        bits = (1 << bucket).to_bytes(32, "big").lstrip(b"\0")
        cid = dag.node(UnixFS(Kind.HAMT_SHARD, bits, hash_type=0x22, fanout=256), [Link(cid, place.label(bucket), 1)])
    return cid


async def test_shards_deeper_than_the_hash() -> None:
    dag = Dag()
    root = shard_chain(dag, b"name", 12, dag.directory([]))
    with pytest.raises(MalformedBlock, match="deeper than its hash"):
        await drain(entries(dag.source, root))
    with pytest.raises(MalformedBlock, match="deeper than its hash"):
        await resolve(dag.source, root, [b"name"])


async def test_shard_bomb() -> None:
    """A shard that stands in every bucket of its parent, eight levels deep: 256^8 paths in 64 kB."""
    dag = Dag()
    place, cid = hamt.placement(256), shard(dag, {b"name": dag.put(b"x", RAW)})
    for _ in range(6):
        message = UnixFS(Kind.HAMT_SHARD, b"\xff" * 32, hash_type=0x22, fanout=256)
        cid = dag.node(message, [Link(cid, place.label(bucket), 1) for bucket in range(256)])
    with pytest.raises(MalformedBlock, match=r"stands twice|wrong bucket"):
        await drain(entries(dag.source, cid))


async def test_a_child_that_is_no_shard_of_the_same_kind() -> None:
    dag = Dag()
    root = shard_chain(dag, b"name", 1, dag.directory([]))
    with pytest.raises(MalformedBlock, match="stands for a HAMT shard and is a directory"):
        await drain(entries(dag.source, root))
    other = dag.node(UnixFS(Kind.HAMT_SHARD, b"", hash_type=0x22, fanout=8))
    with pytest.raises(MalformedBlock, match="another fanout"):
        await drain(entries(dag.source, shard_chain(dag, b"name", 1, other)))


async def test_of_duplicate_names_the_first_wins() -> None:
    dag = Dag()
    first, second = dag.put(b"first", RAW), dag.node(UnixFS(Kind.SYMLINK, b"/etc/passwd"))
    root = dag.directory([(b"a", first), (b"a", second), (b"b", second)])
    assert [(link.name, link.cid) async for link in entries(dag.source, root)] == [(b"a", first), (b"b", second)]
    assert await resolve(dag.source, root, [b"a"]) == first


async def test_identity_cids_are_opened_in_place_and_bounded() -> None:
    dag = Dag()
    small = cid_v1(RAW, b"\x00\x05hello")
    root = dag.file([(small, 5), (small, 5)])
    assert b"".join(read_stored(dag.store, root)) == b"hellohello"
    nested = Cid(small)
    for _ in range(3):
        block = dag_pb.encode_trusted([Link(nested, b"", 5)], node.encode(UnixFS(Kind.FILE, None, 5, [5])))
        nested = cid_v1(DAG_PB, b"\x00" + write_varint(len(block)) + block)
    assert b"".join(read_stored(dag.store, nested)) == b"hello"
    assert links_of(nested, dag_pb.encode_trusted([Link(nested)], None)) == []
    assert [block.cid async for block in walk(dag.source, [nested])] == []
    assert await fetch_dag(dag.source, nested) == 0
    large = cid_v1(RAW, b"\x00" + write_varint(129) + bytes(129))
    for attempt in (
        lambda: b"".join(read_stored(dag.store, dag.file([(large, 129)]))),
        lambda: links_of(root, dag_pb.encode_trusted([Link(large)], None)),
    ):
        with pytest.raises(InvalidArgument, match="129 bytes"):
            attempt()


def test_links_of_what_has_none_or_no_known_codec() -> None:
    raw = make_block(b"x")
    assert links_of(*raw) == []
    unknown: Block = make_block(b"{}", 0x0129)
    with pytest.raises(InvalidArgument, match="codec 0x129 is not known"):
        links_of(*unknown)
    for data in (b"", b"\xff", b"\x81" * 100_000, b"\xa2\x61a\x01\x61a\x02", b"\x7b" + b"\xff" * 9, b"\xd8\x2a\x40"):
        with pytest.raises(IpcsError):
            links_of(cid_v1(DAG_CBOR, b"\x12\x20" + bytes(32)), data)


def test_a_block_of_nothing_but_links_stays_within_memory() -> None:
    """2 MiB of the smallest links there are: 262,144 of them."""
    smallest = dag_pb.encode_trusted([Link(cid_v1(RAW, b"\x00\x00"), None, None)], None)
    data = smallest * (2 * 1024 * 1024 // len(smallest))
    tracemalloc.start()
    kept = dag_pb.decode(data[: len(data) // 16])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept.links) == 16_384
    assert peak < 6 << 20  # so that the whole takes less than 96 MiB


def test_huge_size_list() -> None:
    sizes = b"\x20\x01" * 200_000
    assert len(node.decode(b"\x08\x02" + sizes).blocksizes) == 200_000
    assert len(node.decode(b"\x08\x02\x22" + write_varint(200_000) + b"\x01" * 200_000).blocksizes) == 200_000


MALFORMED = [
    *("", "08", "0803", "0806", "0a00", "08021205aa", "080238ffffffff1f", "08021d0000", "0802" + "18" + "ff" * 10),
    *("080242021000", "0802420708011500ca9a3b", "08024200", "080243"),  # modification times
]


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_messages(data: str) -> None:
    with pytest.raises(MalformedBlock):
        node.decode(bytes.fromhex(data))


def test_messages_are_read_leniently_as_proto2_is() -> None:
    decoded = node.decode(bytes.fromhex("2202" + "0401" + "1805" + "2001" + "0802" + "5803" + "1806"))
    assert decoded == UnixFS(Kind.FILE, filesize=6, blocksizes=[4, 1, 1])
    assert node.decode(node.encode(UnixFS(Kind.FILE, mode=0o107644))).mode == 0o7644
    with pytest.raises(InvalidArgument, match="out of range"):
        node.encode(UnixFS(Kind.FILE, mtime=node.Mtime(0, 10**9)))
    assert Attributes() == (None, None)
