"""The key file."""

from __future__ import annotations

import os
import stat

import pytest

from ipcs.errors import AlreadyExists, FailedPrecondition, NotFound
from ipcs.net import identity
from ipcs.net.keys import Identity


def test_made_once_and_read_ever_after(tmp_path):
    path = tmp_path / "repo" / "key"
    made = identity.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.load_or_create(path) == made
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        identity.create(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_open_to_others_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "key"
    identity.create(path)
    path.chmod(0o640)
    with pytest.raises(FailedPrecondition, match=f"chmod 600 {path}"):
        identity.load(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 68, Identity(bytes(32)).to_protobuf()[:-1], bytes(9000)])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FailedPrecondition, match="does not hold a key"):
        identity.load_or_create(path)
    assert path.read_bytes() == content


def test_create_never_replaces(tmp_path):
    first = identity.create(tmp_path / "key")
    with pytest.raises(AlreadyExists):
        identity.create(tmp_path / "key")
    assert identity.load(tmp_path / "key") == first
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_no_file(tmp_path):
    with pytest.raises(NotFound):
        identity.load(tmp_path / "key")
