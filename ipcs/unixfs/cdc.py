"""Content-defined chunking: rabin and buzhash, cutting where Kubo's cut.

Both fingerprints are XORs of one term for each byte of a short window, so numpy can compute every position of a
stretch at once instead of sliding byte by byte:

- rabin: the window's 16 bytes as a polynomial over GF(2), modulo a fixed one. A byte's term is a table look-up. Only
  the low 8 bits are computed everywhere (`bytes.translate` is the fastest look-up there is), and the whole mask only
  at the one position in 256 that passes.
- buzhash: 32 table words, each rotated by its distance from the window's end. Because rotation distributes over XOR,
  the hash of 2n bytes is the hash of the first n rotated by n, XOR the hash of the next n: five doublings.

Stretches are small enough to stay in the CPU's caches. numpy is imported only here, so only when such a chunker is
asked for.

Sources: whyrusleeping/chunker `chunker.go` and boxo `chunker/buzhash.go`, whose cuts these are
(tests/vectors/cutpoints.json). Kubo's rabin differs from js-ipfs-unixfs's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..block import Data

Cut: TypeAlias = Callable[[memoryview], int]
"""Length of the first chunk of a buffer that holds a longest chunk, or all that is left of the stream."""

_STRETCH = 16384
"""Positions computed at once: all the arrays together fit a 512 KiB L2 cache."""

_POLYNOMIAL = 0x3DF305DFB2A805
_DEGREE = 53
_RABIN_WINDOW = 16

BUZHASH_MIN = 131072
BUZHASH_MAX = 524288
_BUZHASH_MASK = (1 << 17) - 1
_BUZHASH_WINDOW = 32


class ContentChunker:
    """A chunker that asks `cut` for the length of each chunk, once `longest` bytes or the end are at hand."""

    def __init__(self, cut: Cut, longest: int) -> None:
        self._cut = cut
        self._longest = longest
        self._buffer = bytearray()

    def feed(self, data: Data) -> list[Data]:
        self._buffer += data
        return self._take(self._longest)

    def finish(self) -> list[Data]:
        return self._take(1)

    def _take(self, enough: int) -> list[Data]:
        chunks: list[Data] = []
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= enough:
                with view[at : at + self._longest] as head:
                    length = self._cut(head)
                    chunks.append(bytes(head[:length]))
                at += length
        del self._buffer[:at]
        return chunks


def _times_x(value: int, power: int) -> int:
    """`value` * x^`power` modulo the polynomial, over GF(2)."""
    for _ in range(power):
        value <<= 1
        if value >> _DEGREE:
            value ^= _POLYNOMIAL
    return value


def _rabin_tables() -> NDArray[np.uint64]:
    """Term of a byte by its place in the window (0 is the oldest): [place, byte]."""
    rows = [[_times_x(byte, 8 * (_RABIN_WINDOW - 1 - place)) for byte in range(256)] for place in range(_RABIN_WINDOW)]
    return np.array(rows, dtype=np.uint64)


def rabin_cut(least: int, average: int, most: int) -> Cut:
    """The rabin cut for chunks of `least` to `most` bytes, a power of two near `average` on random bytes."""
    tables = _rabin_tables()
    mask = (1 << (average.bit_length() - 1)) - 1
    low = min(mask, 0xFF)
    translations = [
        (place, (tables[place] & np.uint64(low)).astype(np.uint8).tobytes())
        for place in range(_RABIN_WINDOW)
        if (tables[place] & np.uint64(low)).any()
    ]

    def candidates(window: bytes, count: int) -> NDArray[np.intp]:
        total = np.zeros(count, dtype=np.uint8)
        for place, table in translations:
            total ^= np.frombuffer(window.translate(table), dtype=np.uint8, count=count, offset=place)
        return np.flatnonzero(total == 0)

    def first_match(window: bytes, found: NDArray[np.intp]) -> int | None:
        values = np.frombuffer(window, dtype=np.uint8)
        total = np.zeros(len(found), dtype=np.uint64)
        for place in range(_RABIN_WINDOW):
            total ^= tables[place][values[found + place]]
        matches = np.flatnonzero(total & np.uint64(mask) == 0)
        return int(found[matches[0]]) if len(matches) else None

    def cut(data: memoryview) -> int:
        end = min(len(data), most)
        for begin in range(least, end + 1, _STRETCH):  # lengths to try, in stretches
            count = min(_STRETCH, end + 1 - begin)
            window = bytes(data[begin - _RABIN_WINDOW : begin + count - 1])
            match = first_match(window, candidates(window, count))
            if match is not None:
                return begin + match
        return end

    return cut


def _rotate(words: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
    return (words << np.uint32(by)) | (words >> np.uint32(32 - by))


def _buzhash_all(window: memoryview, count: int) -> NDArray[np.uint32]:
    """The hash at each of `count` positions of `window`, which has 31 bytes more."""
    hashes = _BUZHASH_TABLE[np.frombuffer(window, dtype=np.uint8)]
    width = 1
    while width < _BUZHASH_WINDOW:
        hashes = _rotate(hashes[:-width], width) ^ hashes[width:]
        width *= 2
    return hashes[:count]


def buzhash_cut(data: memoryview) -> int:
    """The buzhash cut: chunks of 128 to 512 KiB, 256 KiB on average on random bytes."""
    if len(data) < BUZHASH_MIN:
        return len(data)
    last = len(data) - _BUZHASH_WINDOW  # as in Go, the window that ends the buffer is not looked at
    for begin in range(BUZHASH_MIN - _BUZHASH_WINDOW, last, _STRETCH):
        count = min(_STRETCH, last - begin)
        hashes = _buzhash_all(data[begin : begin + count + _BUZHASH_WINDOW - 1], count)
        matches = np.flatnonzero(hashes & np.uint32(_BUZHASH_MASK) == 0)
        if len(matches):
            return begin + int(matches[0]) + _BUZHASH_WINDOW
    return len(data)


_BUZHASH_TABLE = np.frombuffer(
    bytes.fromhex(
        "6236e7d510279b0b72818182dc5265142fd41e3d777ef8c883ee52852c8f36372f049c1a57df97919207151f9b544818"
        "74eef6582028ca600271d91a27ae587eecf9fa5f236e71cdf43a8a2e0bb133809e57912c89a26cdb9fcf3d71a86da6f1"
        "9c49f376346aecc7f094a9eeea99e9cbb01713c6088acffb2960a0fb344a626c7ff22a466d7a1aa56a71491641d454ca"
        "8325b8300b65f563447feccaf9d0ea5ec1d9d3d4cb5ec57455aae90286edc0e70d3a9e33e70dc1e1e3c5f6399b43140a"
        "c6490ac55e4030fb8e976dd5a87468eaf830ef6fcc1ed5a5611f4e78ddd11905f2613904566c67b9905a5ccc7b37b3a4"
        "4b53898a6b8fd29daad81575511be4143cfac1e78029a179d40efeda07380e02dc9beffd2d04908299bc7831ff5002a8"
        "21ce764601cd049b0f43994fc3c6c5a5bbda5f500ec15ec79adb19b60c1e80b9b9b52968ae1624192542b40591a42e9d"
        "6be0f6686ed7a6b9bc2777b4e162ce564266aad560fdb70466f832a59595f6cafee83ced55228d9912bf0e2866896459"
        "0789afda0282baa82367a343591491b02ff1a4b1410739b69b7055a02e0eb22924fc82523327d3dfb07826691c62e069"
        "7f503101f50593aed9eb275de00eb6785917ccde97b9660add06202ded229e22a9c735bfd6316fe66fc72e4c0206dfa2"
        "d6b15c5a69d87b4909c9774513445d6135a975aa859aa9b965380013d1fb6391c29255fd784a3b91b9e74c2663ce4d40"
        "c07cbe9ee6e4529e0fb3632f9438d9c9682f94a8f8fd4611257ec1ed475ce3d660ee2db12afab0022b9e487886b340de"
        "1482fdcafe41b3bfd4a412b0e09db98cc1af5d537e55e25fd3346b38b7a12cbd9c6827ba71f78bee8c3a0f52150491b0"
        "f26de912233e3a4ed309ebbaa0a9e0ffca2b5921eeb9893c33829e889870cc2a23c4b9d0eba32ea3bdac4d223bc8c44c"
        "1e8d0397f9327735783b009f0eb837422621dc71ed017d035c760aa15a69814b96e3047fa93c9cde615c86f5b4322aa5"
        "4225534d0d2e2de3ccfccc4b0bac2a57f0a06d04bc78d737f2d1f766f5a7953cbcdfda855213b7d5bce8a328d38f5f18"
        "db094244fe571253317fa7ee4a324f433ffc39d951b3fa8e7a4bee9f78bbc6829f5c035002fe286c245ab686ed6bf7d7"
        "0ac4988a3fe010fac65fe369a45749cb2b84e537de9ff36320540f9aaa8c9b345bc476b31d574bd7929100ad4721de4d"
        "27df1b0558b18546b7e76764df904e5897af57a1bd4dc433a6256dfdf63998f3f1e05833e20acf26f57fd9d690300b4d"
        "89df429068d01cbccf893ee3cc42a046778e181b67265c76e981a4c482991da1708f7294e6e2ae62fc44187095e1b0b6"
        "0445f8255a93b47f5e9cf4be84da71e79d9582b09bf835ef591f61e2433259855d2de32e8d8fbf0f95b30f3807ad5b6e"
        "4e934edf3cd4990e9053e2595c41857d"
    ),
    dtype=">u4",
).astype(np.uint32)
