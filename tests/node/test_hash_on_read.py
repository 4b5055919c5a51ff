"""`--hash-on-read`: a block that rots on the disk while the node is down."""

import random
from dataclasses import replace
from hashlib import sha256

import pytest

from ipcs.cid import sha256_multihash
from ipcs.config import NodeConfig
from ipcs.node import build_parser, config_of, open_node

LEAF = 256 * 1024


@pytest.mark.parametrize("flags", [[], ["--hash-on-read"]], ids=["trusted", "hashed"])
async def test_a_rotten_block_is_put_aside_only_where_reads_are_hashed(tmp_path, flags):
    args = ["--repo", str(tmp_path / "repo"), "--listen", "/ip4/127.0.0.1/tcp/0", *flags]
    config: NodeConfig = config_of(build_parser().parse_args(args), {})
    data = random.Random(1).randbytes(3 * LEAF)
    path = tmp_path / "file"
    path.write_bytes(data)
    async with open_node(replace(config, hash_on_read=False)) as node:
        await node.files.add(path)
    leaf = data[LEAF : 2 * LEAF]
    [segment] = (tmp_path / "repo" / "store").rglob("*.seg")
    at = segment.read_bytes().index(leaf)
    with segment.open("r+b") as file:
        file.seek(at + 1000)
        file.write(bytes([leaf[1000] ^ 1]))
    async with open_node(config) as node:
        [found] = node.store.blocks.get_many([sha256_multihash(sha256(leaf).digest())])
        assert (found is None) == bool(flags)
