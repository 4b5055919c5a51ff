"""Inputs of the published test vectors, made from their recipes (tests/vectors/cids.json, `meta.generators`)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ..hashes import HASH_NAMES
from ..unixfs.node import Attributes, Mtime
from ..unixfs.profile import Estimate, Layout, Profile

_KUBO_ALPHABET = b"abcdefghijklmnopqrstuvwxyz01234567890-_"

_GO_MATH_RAND = "r := rand.New(rand.NewSource(%d)); b := make([]byte, %d); r.Read(b)"
_GO_CHACHA8 = 'r := rand.NewChaCha8([32]byte([]byte("%s"))); b := make([]byte, %d); r.Read(b)'
_GO_PROGRAM = 'package main\nimport ("os"; "%s")\nfunc main() { %s; os.Stdout.Write(b) }\n'


class RecipeError(Exception):
    """This machine cannot make the input; the message says what it lacks."""


def fixtures_folder() -> Path:
    """The folder of fixtures that are used in place. Raises `RecipeError` when `IPCS_FIXTURES` is not set."""
    folder = os.environ.get("IPCS_FIXTURES")
    if not folder:
        raise RecipeError("IPCS_FIXTURES does not name the folder with the public fixtures")
    return Path(folder)


def chacha20(seed: str, size: int) -> bytes:
    """The first `size` bytes of the ChaCha20 keystream of `seed`."""
    key = hashlib.sha256(seed.encode()).digest()
    stream: bytes = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(size))
    return stream


def sha256_counter(seed: str, size: int) -> bytes:
    """SHA-256(seed || counter) blocks, `size` bytes."""
    text = seed.encode()
    blocks = (hashlib.sha256(text + i.to_bytes(8, "little")).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def content(recipe: dict[str, Any]) -> bytes:
    """The bytes of a content recipe. Raises `RecipeError`."""
    generator: str = recipe["gen"]
    size: int = recipe.get("size", 0)
    match generator:
        case "utf8":
            return str(recipe["text"]).encode()
        case "hex":
            return bytes.fromhex(recipe["hex"])
        case "zeros":
            return bytes(size)
        case "counter":
            return (bytes(range(256)) * (size // 256 + 1))[:size]
        case "chacha20":
            return chacha20(recipe["seed"], size)
        case "sha256ctr":
            return sha256_counter(recipe["seed"], size)
        case "go-math-rand":
            return _go_math_rand(recipe["seed"], size)
        case "go-chacha8":
            return _run_go("math/rand/v2", _GO_CHACHA8 % (recipe["seed"], size))
    raise ValueError(f"recipe {generator!r} is not known")


def _go_math_rand(seed: int, size: int) -> bytes:
    if "IPCS_FIXTURES" in os.environ:
        kept = fixtures_folder() / "vectors" / f"go-math-rand-seed{seed}-{size}.bin"
        if kept.exists():
            return kept.read_bytes()
    return _run_go("math/rand", _GO_MATH_RAND % (seed, size))


def _run_go(package: str, body: str) -> bytes:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise RecipeError(f"a Go toolchain is needed to run {package}")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "main.go"
        program.write_text(_GO_PROGRAM % (package, body))
        done = subprocess.run([go, "run", str(program)], check=True, stdout=subprocess.PIPE, timeout=300)
        return bytes(done.stdout)


def directory_entries(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> node recipe, for a directory recipe of any form."""
    if recipe.get("gen") == "numbered-dir":
        return {
            f"{recipe['prefix']}{str(n).zfill(recipe['width'])}": {
                "type": "file",
                "content": {"gen": "utf8", "text": recipe["content"].replace("{n}", str(n))},
            }
            for n in range(recipe["first"], recipe["last"] + 1)
        }
    if recipe.get("gen") == "kubo-dir":
        return {name: {"type": "file", "content": {"gen": "utf8", "text": "x"}} for name in _kubo_names(recipe)}
    entries: dict[str, dict[str, Any]] = recipe["entries"]
    return entries


def _kubo_names(recipe: dict[str, Any]) -> list[str]:
    lengths = [recipe["nameLen"]] * (recipe["files"] - 1) + [recipe["lastNameLen"]]
    stream = chacha20(recipe["seed"], sum(lengths))
    names, at = [], 0
    for length in lengths:
        names.append(bytes(_KUBO_ALPHABET[byte % 39] for byte in stream[at : at + length]).decode())
        at += length
    return names


def profile_of(params: dict[str, Any]) -> Profile:
    """The import parameters of a vector row."""
    return Profile(
        name="vector",
        cid_version=params["cidVersion"],
        raw_leaves=params["rawLeaves"],
        hash_code=HASH_NAMES[params.get("hash", "sha2-256")],
        chunker=params.get("chunker", "size-262144"),
        layout=Layout(params.get("layout", "balanced")),
        max_links=params.get("maxLinks", 174),
        inline_limit=params.get("inlineLimit", 0),
        hamt_threshold=params.get("hamtThreshold", 262144),
        hamt_estimate=Estimate(params.get("hamtEstimation", "links-bytes")),
        hamt_fanout=params.get("hamtFanout", 256),
    )


def attributes_of(node: dict[str, Any]) -> Attributes:
    """The mode and mtime of a node recipe."""
    mtime = node.get("mtime")
    return Attributes(node.get("mode"), Mtime(*mtime) if mtime else None)
