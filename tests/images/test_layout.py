import hashlib
import json
import tarfile

import pytest

from ipcs.errors import HashMismatch, InvalidArgument
from ipcs.images.layout import MAX_MANIFEST, read_image


def put(layout, data):
    name = hashlib.sha256(data).hexdigest()
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / name).write_bytes(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


@pytest.fixture
def layout(tmp_path):
    """An image of two layers, one of them twice, below an index of an index."""
    root = tmp_path / "layout"
    manifest = {
        "config": put(root, b"{}"),
        "layers": [put(root, b"one"), put(root, b"two"), put(root, b"one")],
    }
    inner = put(root, json.dumps(manifest).encode()) | {"mediaType": "application/vnd.oci.image.manifest.v1+json"}
    outer = put(root, json.dumps({"manifests": [inner]}).encode())
    outer["mediaType"] = "application/vnd.oci.image.index.v1+json"
    (root / "index.json").write_text(json.dumps({"manifests": [outer]}))
    return root


def contents(blobs):
    return sorted(blob.path.read_bytes()[:3] for blob in blobs)


def test_every_blob_once(layout, tmp_path):
    blobs = read_image(layout, tmp_path)
    assert contents(blobs) == [b"one", b"two", b'{"c', b'{"m', b"{}"]
    assert all(blob.size == blob.path.stat().st_size for blob in blobs)


def test_a_tar_of_a_layout(layout, tmp_path):
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        tar.add(layout, arcname=".")
    assert contents(read_image(tmp_path / "image.tar", tmp_path)) == contents(read_image(layout, tmp_path))


def test_docker_save(tmp_path):
    root = tmp_path / "saved"
    for number in ("1", "2"):
        (root / f"layer{number}").mkdir(parents=True)
    (root / "layer1" / "layer.tar").write_bytes(b"layer")
    (root / "layer2" / "layer.tar").symlink_to("../layer1/layer.tar")
    (root / "config.json").write_bytes(b"config")
    layers = ["layer1/layer.tar", "layer2/layer.tar"]
    (root / "manifest.json").write_text(json.dumps([{"Config": "config.json", "Layers": layers}]))
    with tarfile.open(tmp_path / "saved.tar", "w") as tar:
        tar.add(root, arcname=".")
    digests = [blob.digest for blob in read_image(tmp_path / "saved.tar", tmp_path)]
    assert digests == [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (b"config", b"layer")]


def test_a_changed_byte_is_noticed(layout, tmp_path):
    victim = next((layout / "blobs" / "sha256").iterdir())
    victim.write_bytes(victim.read_bytes() + b"!")
    with pytest.raises(HashMismatch, match=victim.name):
        read_image(layout, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escaped", tarfile.REGTYPE, ""),
        ("/escaped", tarfile.REGTYPE, ""),
        ("a/../../escaped", tarfile.REGTYPE, ""),
        ("inside", tarfile.SYMTYPE, "../../escaped"),
        ("inside", tarfile.LNKTYPE, "../escaped"),
        ("inside", tarfile.FIFOTYPE, ""),
    ],
)
def test_a_tar_may_not_leave_its_directory(tmp_path, name, kind, link):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(member)
    with pytest.raises(InvalidArgument):
        read_image(tmp_path / "evil.tar", tmp_path / "work")
    assert not (tmp_path / "escaped").exists()


def test_docker_save_may_not_name_files_outside(tmp_path):
    (tmp_path / "secret").write_text("x")
    root = tmp_path / "saved"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps([{"Config": "../secret", "Layers": []}]))
    with pytest.raises(InvalidArgument, match="not in it"):
        read_image(root, tmp_path)


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"manifests": {}}', '{"manifests": [{"digest": "../../etc/passwd"}]}', '{"manifests": [7]}']
)
def test_malformed_indexes_are_named_errors(index, tmp_path):
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(InvalidArgument):
        read_image(tmp_path, tmp_path)


def test_an_oversized_manifest_is_not_read(tmp_path):
    (tmp_path / "index.json").write_bytes(b" " * (MAX_MANIFEST + 1))
    with pytest.raises(InvalidArgument, match="too large"):
        read_image(tmp_path, tmp_path)


def test_garbage_is_no_image(tmp_path):
    (tmp_path / "x").write_bytes(b"garbage")
    with pytest.raises(InvalidArgument, match="neither a directory nor a readable tar"):
        read_image(tmp_path / "x", tmp_path)
