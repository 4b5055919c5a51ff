"""The shipped suite against the library over memory and disk, and against the live socket."""

import pytest
import trio

from ipcs.content.client import RemoteContent
from ipcs.content.server import ContentService
from ipcs.content.store import ContentStore
from ipcs.rpc.server import serve
from ipcs.store.store import memory_store, open_store
from ipcs.testing.content_conformance import CHECKS, check_name
from ipcs.unixfs.walk import links_of


def open_either(kind, path):
    return memory_store(links_of) if kind == "memory" else open_store(path / "store", links_of)


@pytest.fixture(params=["memory", "leveldb"])
def content(request, tmp_path):
    with open_either(request.param, tmp_path) as store:
        content = ContentStore(store, tmp_path / "ingests")
        yield content
        content.close()


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_library(check, content):
    check(content)


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_socket(check, tmp_path):
    def client():
        with RemoteContent(tmp_path / "s") as remote:
            check(remote)

    with open_either("leveldb", tmp_path) as store:
        content = ContentStore(store, tmp_path / "ingests")
        async with serve(tmp_path / "s", ContentService(content).handlers):
            await trio.to_thread.run_sync(client)
        content.close()
