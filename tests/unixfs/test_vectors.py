"""Every published vector: what independent implementations made of the same input."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from ipcs.cid import format_cid
from ipcs.errors import MalformedBlock
from ipcs.testing.recipes import RecipeError, attributes_of, content, directory_entries, profile_of
from ipcs.unixfs import dag_pb, hamt, node
from ipcs.unixfs.chunker import make_chunker
from ipcs.unixfs.importer import Importer
from ipcs.unixfs.reader import FileReader
from ipcs.unixfs.tree import CloseDirectory, CloseFile, OpenDirectory, OpenFile, Symlink, TreeImporter

VECTORS = Path(__file__).parent.parent / "vectors"
LARGE = 8 << 20
TINY_CHUNKS = "rabin-36-512-1024"


def rows(*names: str) -> list[Any]:
    out = []
    for name in names:
        for number, row in enumerate(json.loads((VECTORS / f"{name}.json").read_text())["vectors"]):
            source = row.get("input", {})
            size = source.get("content", {}).get("size", 0) if isinstance(source.get("content"), dict) else 0
            is_long = size > LARGE or (row.get("params", {}).get("chunker") == TINY_CHUNKS and size >= 1 << 20)
            marks = [pytest.mark.slow] if is_long else []
            out.append(pytest.param(row, id=row.get("id", f"{name}-{number}"), marks=marks))
    return out


def made(recipe: dict[str, Any]) -> bytes:
    try:
        return _made(json.dumps(recipe))
    except RecipeError as exc:
        pytest.skip(f"VECTOR NOT RUN: {exc}")


@lru_cache(maxsize=16)
def _made(recipe: str) -> bytes:
    return content(json.loads(recipe))


def is_file(parameter: Any) -> bool:
    return parameter.values[0]["input"].get("type") == "file"


@pytest.mark.parametrize("row", [row for row in rows("cids", "kubo_cids") if is_file(row)])
def test_file(row: dict[str, Any]) -> None:
    data = made(row["input"]["content"])
    if "sha256" in row:
        assert hashlib.sha256(data).hexdigest() == row["sha256"], "the recipe made another input"
    importer = Importer(profile_of(row["params"]), attributes_of(row["input"]))
    blocks = 0
    for begin in range(0, len(data), 1 << 20):
        blocks += len(importer.feed(memoryview(data)[begin : begin + (1 << 20)]))
    blocks += len(importer.finish())
    root = importer.root
    if row["params"].get("printAs") == "cidv1-base32":
        from ipcs.cid import to_v1

        root = root._replace(cid=to_v1(root.cid))
    assert format_cid(root.cid) == row["expected"]
    assert root.size == len(data)
    assert root.tsize == row.get("rootTsize", root.tsize)
    assert blocks == row.get("blocks", blocks)


def build_tree(tree: TreeImporter, name: bytes, recipe: dict[str, Any]) -> None:
    """Feed one node of a recipe, and everything below it, to `tree`."""
    kind = recipe.get("type", "dir")
    if kind == "file":
        for step in (OpenFile(name, attributes_of(recipe)), made(recipe["content"]), CloseFile()):
            tree.step(step)
    elif kind == "symlink":
        tree.step(Symlink(name, recipe["target"].encode(), attributes_of(recipe)))
    else:
        tree.step(OpenDirectory(name))
        for child, node_recipe in directory_entries(recipe).items():
            build_tree(tree, child.encode(), node_recipe)
        tree.step(CloseDirectory(attributes_of(recipe)))


@pytest.mark.parametrize("row", [row for row in rows("cids", "kubo_dirs") if not is_file(row)])
def test_directory(row: dict[str, Any]) -> None:
    tree = TreeImporter(profile_of(row["params"]))
    build_tree(tree, b"", row["input"])
    assert format_cid(tree.take()[-1].cid) == row["expected"]


HAMT_TRAP = json.loads((VECTORS / "hamt_threshold_ge_trap.json").read_text())


@pytest.mark.parametrize("row", HAMT_TRAP, ids=lambda row: row["oracle"] + str(row["params"]["cidVersion"]))
def test_hamt_threshold_is_exclusive(row: dict[str, Any]) -> None:
    width = 27 if row["params"]["cidVersion"] else 29  # a name and a CID together are 64 bytes, 4096 of them
    recipe = {"gen": "numbered-dir", "prefix": "z", "first": 1, "last": 4096, "width": width, "content": "x"}
    for threshold, expected in ((262144, row["basic_cid"]), (262143, row["hamt_cid"])):
        tree = TreeImporter(profile_of(row["params"] | {"hamtThreshold": threshold}))
        build_tree(tree, b"", recipe)
        assert format_cid(tree.take()[-1].cid) == expected


@pytest.mark.parametrize("row", rows("murmur3"))
def test_name_hash(row: dict[str, Any]) -> None:
    assert f"{hamt.name_hash(row['name'].encode()):016x}" == row["hash"]


@pytest.mark.parametrize("row", rows("cutpoints"))
@pytest.mark.parametrize("piece", [65536, 1 << 20], ids=str)
def test_cut_points(row: dict[str, Any], piece: int) -> None:
    data = made(row["input"])
    chunker = make_chunker(row["chunker"])
    chunks = [c for begin in range(0, len(data), piece) for c in chunker.feed(data[begin : begin + piece])]
    chunks += chunker.finish()
    sizes = [len(chunk) for chunk in chunks]
    assert b"".join(chunks) == data
    assert sizes[: len(row["sizes"])] == row["sizes"]
    assert len(sizes) == row["count"]
    assert hashlib.sha256(",".join(map(str, sizes)).encode()).hexdigest() == row["sizesSha256"]


@pytest.mark.parametrize("row", rows("unixfs_invalid"))
def test_invalid_unixfs(row: dict[str, Any]) -> None:
    block = bytes.fromhex(row["hex"])
    decoded = dag_pb.decode(block)  # well-formed dag-pb
    assert dag_pb.encode(decoded) == block
    reader = FileReader(dag_pb_cid(block))
    reader.supply([])
    assert len(reader.wanted()) == 1
    with pytest.raises(MalformedBlock):
        reader.supply([block])
    if decoded.data is not None:
        with pytest.raises(MalformedBlock):
            node.decode(decoded.data)


def dag_pb_cid(block: bytes) -> Any:
    from ipcs.block import make_block
    from ipcs.cid import DAG_PB

    return make_block(block, DAG_PB).cid
