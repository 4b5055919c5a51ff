"""The control service over a real socket, at its edges."""

import pytest
import trio

from ipcs.control.client import ControlClient
from ipcs.errors import FailedPrecondition, InvalidArgument, Unavailable
from ipcs.testing.node import open_node_process

RAW_HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


def result(frames):
    return [frame["result"] for frame in frames if isinstance(frame, dict) and "result" in frame]


def use(socket):
    with ControlClient(socket) as node:
        assert result(node.stream("block.put", {}, [b"hello ", b"world"])) == [{"cid": RAW_HELLO, "size": 11}]

        with pytest.raises(FileNotFoundError):
            list(node.stream("add", {}, (open(path, "rb").read() for path in ["/nonexistent"])))  # noqa: SIM115
        with pytest.raises(InvalidArgument, match="non-empty string"):
            node.call("block.get", {})
        with pytest.raises(InvalidArgument, match="not a CID"):
            node.call("block.get", {"cid": "nonsense"})
        with pytest.raises(InvalidArgument, match="seconds"):
            node.call("id", {"timeout": "soon"})
        with pytest.raises(FailedPrecondition, match="another version"):
            node.call("no.such.method")

        early = node.stream("cat", {"path": RAW_HELLO})
        next(early)
        early.close()  # the node must go on serving
        assert node.call("block.stat", {"cid": RAW_HELLO}) == {"cid": RAW_HELLO, "size": 11}


async def test_calls_errors_and_clients_that_leave(tmp_path):
    async with open_node_process(tmp_path / "repo") as node:
        await trio.to_thread.run_sync(use, node.ready["socket"])


def test_nobody_at_home(tmp_path):
    with ControlClient(tmp_path / "ipcs.sock") as node, pytest.raises(Unavailable, match=r"python -m ipcs\.node"):
        node.call("id")
