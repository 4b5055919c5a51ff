"""py-libp2p's own host and Bitswap as a child process that speaks JSON lines, as README.md beside this says.

Its answers to wants go out on the stream that the want came in on, so only peers that read such streams (itself) can
fetch from it; as a fetcher it works with anyone. Blocks above 512 KiB it refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.bitswap import BitswapClient, cid_to_text
from libp2p.bitswap.dag import MerkleDag
from libp2p.bitswap.errors import BitswapError
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from lines import serve
from multiaddr import Multiaddr

BLOCK_TIMEOUT = 30.0


async def main() -> None:
    host = new_host(key_pair=create_new_key_pair(), muxer_preference="YAMUX")
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]), trio.open_nursery() as nursery:
        client = BitswapClient(host)
        client.set_nursery(nursery)
        await client.start()
        dag = MerkleDag(client)

        async def connect(addr: str) -> dict[str, Any]:
            await host.connect(info_from_p2p_addr(Multiaddr(addr)))
            return {}

        async def peers() -> dict[str, Any]:
            return {"peers": [str(peer) for peer in host.get_connected_peers()]}

        async def add(path: str, chunk: int = 262144) -> dict[str, Any]:
            return {"cid": cid_to_text(await dag.add_file(path, chunk_size=chunk))}

        async def get(cid: str, path: str) -> dict[str, Any]:
            data, _name = await dag.fetch_file(cid, timeout=BLOCK_TIMEOUT)
            await trio.to_thread.run_sync(Path(path).write_bytes, data)
            return {"bytes": len(data)}

        addrs = [str(addr) for addr in host.get_addrs()]
        ops = {"connect": connect, "peers": peers, "add": add, "get": get}
        await serve(str(host.get_id()), addrs, ops, (BitswapError, OSError, ValueError))
        await client.stop()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
