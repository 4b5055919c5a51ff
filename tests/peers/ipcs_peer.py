"""An ipcs node, used as a library, behind the JSON lines of README.md beside this: what the benchmarks measure.

    python ipcs_peer.py --repo DIR [--listen MULTIADDR] [--open] [--durable]

`add` with `index` and `of` keeps all inner nodes but only every `of`-th leaf. `fetch` brings a whole DAG into the
store, with --durable up to the barrier after which it survives a power loss. `stat` counts blocks in the store and
blocks received from each peer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import trio
from lines import serve

from ipcs.allocator import keep_buffers
from ipcs.cid import RAW, codec_of, format_cid, parse_cid
from ipcs.config import NodeConfig
from ipcs.errors import IpcsError
from ipcs.node import Node, open_node
from ipcs.unixfs.importer import Importer
from ipcs.unixfs.profile import Profile

PIECE = 1 << 20


def import_share(node: Node, path: str, profile: Profile, index: int, of: int) -> str:
    importer, leaves = Importer(profile), 0
    with node.store.hold() as hold, Path(path).open("rb") as file:
        while True:
            piece = file.read(PIECE)
            held = []
            for block in importer.feed(piece) if piece else importer.finish():
                is_leaf = codec_of(block.cid) == RAW
                leaves += is_leaf
                if not is_leaf or leaves % of == index:
                    held.append(block)
            hold.put_many(held)
            if not piece:
                return format_cid(importer.root.cid)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--durable", action="store_true")
    args = parser.parse_args()
    async with open_node(NodeConfig(repo=args.repo, listen=(args.listen,), open=args.open)) as node:

        async def connect(addr: str) -> dict[str, Any]:
            await node.host.connect(addr)
            return {}

        async def add(
            path: str, chunk: int = 262144, index: int = 0, of: int = 1, cid_version: int = 1, raw_leaves: bool = True
        ) -> dict[str, Any]:
            profile = Profile(chunker=f"size-{chunk}", cid_version=cid_version, raw_leaves=raw_leaves)
            return {"cid": await trio.to_thread.run_sync(import_share, node, path, profile, index, of)}

        async def fetch(cid: str) -> dict[str, Any]:
            before = node.exchange.statistics().duplicate_bytes
            await node.files.fetch(parse_cid(cid))
            if args.durable:
                await trio.to_thread.run_sync(node.store.barrier)
            return {"duplicates": node.exchange.statistics().duplicate_bytes - before}

        async def stat() -> dict[str, Any]:
            exchange = node.exchange.statistics()
            received = {peer: moved.blocks_received for peer, moved in exchange.peers.items()}
            return {"received": received, "blocks": len(list(node.store.blocks.keys()))}

        async def get(cid: str, path: str) -> dict[str, Any]:
            size = 0
            async with await trio.open_file(path, "wb") as out:
                async for piece in node.files.read(parse_cid(cid)):
                    size += await out.write(piece)
            return {"bytes": size}

        ops = {"connect": connect, "add": add, "fetch": fetch, "get": get, "stat": stat}
        await serve(node.peer_id, list(node.addresses), ops, (IpcsError,))


if __name__ == "__main__":
    keep_buffers()  # as `python -m ipcs.node` does
    trio.run(main)
