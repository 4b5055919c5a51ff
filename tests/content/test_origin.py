"""The way back itself, against a registry on loopback: token, redirect, resumption, refusal."""

import pytest

from ipcs.content.origin import Access, Source, parse_origin, read_blob, try_manifest
from ipcs.errors import InvalidArgument, NotFound, RemoteProtocolError
from ipcs.testing.containerd import free_port
from ipcs.testing.images import build_image
from ipcs.testing.tiny_registry import PRIVATE, Guard, TinyRegistry

HALF = 1_500_000


@pytest.fixture(scope="module")
def image():
    return build_image([3_000_000], seed="origin")


@pytest.fixture
def registry(image):
    with TinyRegistry({"img": image}) as running:
        yield running


def fetch(registry, digest, offset=0, stopped=lambda: False):
    return b"".join(read_blob(Source(registry.address, "img"), digest, offset, {}, stopped))


def access(registry, digest, repository="img"):
    return try_manifest(Source(registry.address, repository), digest, {})[0]


@pytest.mark.parametrize("guard", [None, Guard.ANYBODY])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("offset", [0, HALF])
def test_a_blob_from_any_byte(registry, image, guard, ranges, offset):
    registry.guard, registry.ranges = guard, ranges
    layer = image.layers[1]
    assert access(registry, image.manifest) is Access.OPEN
    assert fetch(registry, layer, offset) == image.blobs[layer][offset:]
    sent = [served.first for served in registry.blob_requests() if served.status in (200, 206)]
    assert sent == [offset if ranges else 0]


def test_storage_that_a_registry_redirects_to_sees_no_token(registry, image):
    layer = image.layers[1]
    registry.guard = Guard.ANYBODY
    with TinyRegistry({"img": image}) as storage:
        registry.storage = storage.address
        assert fetch(registry, layer, HALF) == image.blobs[layer][HALF:]
        assert [(s.first, s.authorized) for s in storage.served] == [(HALF, False)]
    assert [(s.status, s.authorized) for s in registry.blob_requests()] == [(401, False), (307, True)]


@pytest.mark.parametrize("guard", PRIVATE)
def test_a_private_registry_refuses(registry, image, guard):
    registry.guard = guard
    assert access(registry, image.manifest) is Access.REFUSED
    with pytest.raises(RemoteProtocolError):
        fetch(registry, image.layers[1])
    assert all(served.status != 200 for served in registry.blob_requests())


def test_what_is_not_there_and_who_is_not(registry, image):
    absent = "sha256:" + "0" * 64
    assert access(registry, absent) is Access.REFUSED
    assert access(registry, image.manifest, "other") is Access.REFUSED
    with pytest.raises(NotFound):
        fetch(registry, absent)
    registry.blobs_fail = True
    with pytest.raises(RemoteProtocolError, match="503"):
        fetch(registry, image.layers[1])
    nowhere = Source(f"127.0.0.1:{free_port()}", "img")
    assert try_manifest(nowhere, image.manifest, {})[0] is Access.SILENT
    with pytest.raises(RemoteProtocolError):
        list(read_blob(nowhere, absent, 0, {}, lambda: False))


def test_it_ends_when_nobody_wants_it_any_more(registry, image):
    assert fetch(registry, image.layers[1], stopped=lambda: True) == b""


def test_origin_names_where_a_host_answers(registry, image):
    host, url = parse_origin(f"registry.example=http://{registry.address}/")
    assert try_manifest(Source(host, "img"), image.manifest, {host: url})[0] is Access.OPEN
    for wrong in ("registry.example", "=http://a", "a=ftp://b", ""):
        with pytest.raises(InvalidArgument):
            parse_origin(wrong)
