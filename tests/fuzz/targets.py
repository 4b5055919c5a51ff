"""The registry of fuzz targets. A target takes bytes and raises for a finding; the named errors are no finding.

To add one: write a function `(data: bytes) -> None`, put it into `TARGETS`, and put a few inputs that get deep into
`tests/fuzz/corpus/<name>/`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import bitswap, net, routing, rpc, unixfs

TARGETS: dict[str, Callable[[bytes], None]] = {
    "bitswap-engine": bitswap.bitswap_engine,
    "bitswap-message": bitswap.bitswap_message,
    "car": unixfs.car,
    "cid": unixfs.cid,
    "dag-cbor": unixfs.dag_cbor_links,
    "dag-pb": unixfs.dag_pb_node,
    "file": unixfs.file,
    "hamt": unixfs.hamt_directory,
    "http2": rpc.http2,
    "identify": net.identify_message,
    "multistream": net.multistream_listener,
    "noise-frames": net.noise_frames,
    "noise-handshake": net.noise_handshake,
    "public-key": net.public_key,
    "routing-message": routing.routing_message,
    "tree": unixfs.tree,
    "unixfs": unixfs.unixfs_message,
    "yamux": net.yamux,
}
