"""Hash functions by multihash code, and which of them a block may be named by.

sha2-256 is the fast path everywhere and bypasses this table (`ipcs.block`). The allow-list is boxo's
`verifcid/allowlist.go` (digests of 20 to 128 bytes, identity up to 128): a weak or cut hash would let a peer choose
different bytes for one CID. Functions outside `hashlib` are imported when first used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from .cid import IDENTITY, Multihash, read_varint, write_varint
from .errors import InvalidArgument

Buffer: TypeAlias = bytes | memoryview

MIN_DIGEST = 20
"""Shortest acceptable digest in bytes; below it second preimages come within reach (verifcid)."""

MAX_DIGEST = 128
"""Longest acceptable digest in bytes, so that a CID stays small (verifcid)."""

MAX_IDENTITY = 128
"""Longest content in bytes that an identity CID may carry (verifcid; Kubo refuses more since 0.38)."""


def _keccak(bits: int) -> Callable[[Buffer, int], bytes]:
    def run(data: Buffer, _length: int) -> bytes:
        from Crypto.Hash import keccak

        value: bytes = keccak.new(digest_bits=bits, data=bytes(data)).digest()
        return value

    return run


def _blake3(data: Buffer, length: int) -> bytes:
    from blake3 import blake3

    return blake3(data).digest(length)


def _hashlib(name: str) -> Callable[[Buffer, int], bytes]:
    return lambda data, _length: hashlib.new(name, data).digest()


def _blake2b(size: int) -> Callable[[Buffer, int], bytes]:
    return lambda data, _length: hashlib.blake2b(data, digest_size=size).digest()


def _blake2s(size: int) -> Callable[[Buffer, int], bytes]:
    return lambda data, _length: hashlib.blake2s(data, digest_size=size).digest()


_FUNCTIONS: dict[int, tuple[str, int, Callable[[Buffer, int], bytes]]] = {
    0x11: ("sha1", 20, _hashlib("sha1")),
    0x12: ("sha2-256", 32, _hashlib("sha256")),
    0x13: ("sha2-512", 64, _hashlib("sha512")),
    0x14: ("sha3-512", 64, _hashlib("sha3_512")),
    0x15: ("sha3-384", 48, _hashlib("sha3_384")),
    0x16: ("sha3-256", 32, _hashlib("sha3_256")),
    0x17: ("sha3-224", 28, _hashlib("sha3_224")),
    0x19: ("shake-256", 64, lambda data, length: hashlib.shake_256(data).digest(length)),
    0x1A: ("keccak-224", 28, _keccak(224)),
    0x1B: ("keccak-256", 32, _keccak(256)),
    0x1C: ("keccak-384", 48, _keccak(384)),
    0x1D: ("keccak-512", 64, _keccak(512)),
    0x1E: ("blake3", 32, _blake3),
    0x56: ("dbl-sha2-256", 32, lambda data, _length: hashlib.sha256(hashlib.sha256(data).digest()).digest()),
    **{0xB200 + size: (f"blake2b-{8 * size}", size, _blake2b(size)) for size in range(MIN_DIGEST, 65)},
    **{0xB240 + size: (f"blake2s-{8 * size}", size, _blake2s(size)) for size in range(MIN_DIGEST, 33)},
}
"""Code -> name, default digest length in bytes, function of (data, wanted length)."""

_EXTENDABLE = frozenset({0x19, 0x1E})
"""Functions whose output may be longer than their default (go-multihash: shake and blake3)."""

HASH_NAMES: dict[str, int] = {name: code for code, (name, _, _) in _FUNCTIONS.items()}
"""Name in the multicodec table -> code, of the functions a block may be hashed with."""


def hash_name(code: int) -> str:
    """The multicodec name of `code`, or its number in hex when the allow-list has no such function."""
    if code == IDENTITY:
        return "identity"
    return _FUNCTIONS[code][0] if code in _FUNCTIONS else hex(code)


def check_policy(code: int, length: int) -> None:
    """Raise `InvalidArgument` unless blocks may be named by function `code` with a digest of `length` bytes."""
    if code == IDENTITY:
        if length > MAX_IDENTITY:
            raise InvalidArgument(f"identity CID carries {length} bytes, allowed are {MAX_IDENTITY}")
        return
    if code not in _FUNCTIONS:
        raise InvalidArgument(f"hash function {hash_name(code)} is not acceptable for a block")
    name, size, _ = _FUNCTIONS[code]
    longest = MAX_DIGEST if code in _EXTENDABLE else size
    if not MIN_DIGEST <= length <= longest:
        raise InvalidArgument(f"{name} digest has {length} bytes, acceptable are {MIN_DIGEST} to {longest}")


def digest(code: int, data: Buffer, length: int | None = None) -> bytes:
    """`data` hashed by function `code`, cut (blake3, shake-256: extended) to `length` bytes, by default whole.

    Raises `InvalidArgument` for what `check_policy` refuses.
    """
    if code == IDENTITY:
        check_policy(code, len(data))
        return bytes(data)
    if length is None:
        length = _FUNCTIONS[code][1] if code in _FUNCTIONS else MIN_DIGEST
    check_policy(code, length)
    return _FUNCTIONS[code][2](data, length)[:length]


def multihash(code: int, data: Buffer, length: int | None = None) -> Multihash:
    """The multihash of `data`: code, length and digest. Raises like `digest`."""
    value = digest(code, data, length)
    return Multihash(write_varint(code) + write_varint(len(value)) + value)


def verify(multihash: Multihash, data: Buffer) -> bool:
    """Whether `data` hashes to `multihash`. Raises `InvalidArgument` for a hash that policy refuses."""
    code, at = read_varint(multihash)
    length, at = read_varint(multihash, at)
    check_policy(code, length)
    if code == IDENTITY:
        return multihash[at:] == data
    return digest(code, data, length) == multihash[at:]
