"""`ipcs pin`, `ipcs lease`, `ipcs gc` and `ipcs fsck` against a real node."""

import getpass
import random

import pytest
import trio

from ipcs.testing.node import open_node_process

pytestmark = pytest.mark.slow


async def test_pins_hold_and_leases_end(tmp_path):
    me = f"user/{getpass.getuser()}"
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    async with open_node_process(tmp_path / "node") as node:
        (added,) = await node.json("add", path)
        cid = added["cid"]
        (row,) = await node.json("pin", "ls", cid)
        digest = row["root"]
        assert (row["owner"], digest[:7]) == (me, "sha256:")

        assert (await node.json("gc", "--dry-run"))[0]["blobs"] == 0
        assert (await node.cli("pin", "rm", digest)).stdout == f"dropped 1 of {me}\n".encode()
        again = await node.cli("pin", "rm", digest)
        assert again.returncode == 4
        assert f"{me} does not keep {digest}" in again.stderr.decode()

        await node.json("lease", "add", "build", digest, "--expires", "1h")
        await node.json("pin", "add", cid, "--owner", "user/other", "--name", "base")
        held = {row["owner"]: row for row in await node.json("pin", "ls", digest)}
        assert held.keys() == {"lease/build", "user/other"}
        assert held["lease/build"]["expires_at"] is not None
        assert held["user/other"]["name"] == "base"
        assert [row["owner"] for row in await node.json("lease", "ls", "build")] == ["lease/build"]
        assert (await node.json("gc"))[0]["blobs"] == 0

        await node.json("lease", "rm", "build")
        await node.json("pin", "rm", cid, "--owner", "user/other")
        (rehearsed,) = await node.json("gc", "--dry-run")
        (done,) = await node.json("gc")
        assert (rehearsed["blobs"], rehearsed["blocks"]) == (done["blobs"], done["blocks"]) == (1, 5)
        assert done["freed_bytes"] > 0
        assert (await node.cli("fsck")).stdout == b"checked 0 blocks, 0 B: clean\n"
        with trio.fail_after(20):
            gone = await node.cli("pin", "add", cid, "--timeout", "1s")
        assert gone.returncode in (4, 5)


async def test_fsck_finds_what_is_wrong_and_mends_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    async with open_node_process(tmp_path / "node") as node:
        (added,) = await node.json("add", path)
        assert (await node.cli("fsck")).returncode == 0
        (segment,) = (tmp_path / "node" / "store" / "blocks").iterdir()
        with segment.open("r+b") as file:
            file.seek(300_000)
            file.write(b"rot")
        found = await node.cli("fsck", "--repair")
        assert found.returncode == 7
        assert found.stdout.startswith(b"corrupt: ")
        assert (await node.cli("cat", added["cid"], "--timeout", "1s")).returncode in (4, 5)
        assert b"missing: " in (await node.cli("fsck")).stdout
        await node.json("add", path)
        assert (await node.cli("fsck")).returncode == 0
        assert (await node.cli("cat", added["cid"])).stdout == path.read_bytes()
