"""A node: the parts wired in one nursery, as a library and as `python -m ipcs.node`.

async with open_node(NodeConfig(repo=Path("repo"))) as node:
    print(node.addresses)
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

import trio

from .allocator import keep_buffers
from .bitswap.exchange import Exchange, open_exchange
from .bitswap.limits import Config as ExchangeConfig
from .config import AGENT, DEFAULT_ADOPT, DEFAULT_LISTEN, NodeConfig, default_repo, parse_size
from .content.adoption import Mode
from .content.facade import FacadeConfig, open_facade
from .content.origin import parse_origin
from .control.parts import NodeParts
from .control.server import control_service
from .errors import FailedPrecondition, InvalidArgument, IpcsError, Unavailable
from .net.address import parse, parse_with_peer
from .net.bootstrap import keep_connected
from .net.host import Host, HostConfig, open_host
from .net.identity import load_or_create
from .rpc.server import serve
from .store.store import Store, StoreOptions, open_store
from .store.watermark import keep_below_watermark
from .unixfs.files import Files
from .unixfs.walk import links_of

LOOPBACK = ("/ip4/127.", "/ip6/::1/")

_ABOUT = """\
Run an ipcs node: a libp2p peer with a Bitswap engine and a blockstore, serving the `ipcs` command line on a unix
socket. It prints one line when it is ready, and ends on SIGTERM or SIGINT within two seconds.
"""

_EXAMPLES = """\
examples:
  python -m ipcs.node                                         repo ~/.ipcs, listening on 127.0.0.1:4001
  python -m ipcs.node --repo /var/lib/ipcs --socket /run/ipcs/ipcs.sock \\
      --listen /ip4/10.0.0.7/tcp/4001 --open \\
      --bootstrap /ip4/10.0.0.5/tcp/4001/p2p/12D3KooW...       a member of a cluster

Bootstrap peers are dialled until they answer, and again after they went away; giving every node the address of one or
two others is enough. The repo holds the identity (a private key, mode 0600) and the store; one process may use it at
a time. Exit codes: 0 ended by a signal, 1 failure, 2 wrong usage, 3 the repo or socket is in use.
"""


@dataclass(frozen=True)
class Node:
    """A running node; what a Python program uses. Made by `open_node`."""

    config: NodeConfig
    host: Host
    store: Store
    exchange: Exchange
    files: Files

    @property
    def peer_id(self) -> str:
        """The node's libp2p peer id."""
        return self.host.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs with `/p2p/`, to give to others as `--bootstrap`."""
        return self.host.addresses


@asynccontextmanager
async def open_node(config: NodeConfig) -> AsyncIterator[Node]:
    """Run a node as long as the block runs; when it is entered, the node listens and its socket answers.

    Raises `Unavailable` when another process uses the repo or the socket, `InvalidArgument` for an address that is
    malformed or that it may not or cannot listen on, `FailedPrecondition` for an unusable repo.
    """
    _check_addresses(config)
    with _locked_repo(config.repo):
        identity = load_or_create(config.repo / "identity.key")
        store_options = StoreOptions(config.storage_max, config.durability, config.hash_on_read)
        with open_store(config.repo / "store", links_of, store_options) as store:
            host_config = HostConfig(identity=identity, listen=config.listen, agent=AGENT)
            exchange_config = ExchangeConfig(upload_rate=config.upload_rate or inf)
            async with open_host(host_config) as host, open_exchange(host, store.blocks, exchange_config) as exchange:
                files = Files(store, exchange)
                facade_config = FacadeConfig(
                    config.repo / "ingests", Mode(config.adopt), config.containerd, config.origins
                )
                async with (
                    open_facade(facade_config, store, host, exchange) as facade,
                    control_service(
                        NodeParts(config, host, store, exchange, files, facade.statistics.as_json)
                    ) as control,
                    serve(config.socket_path, lambda bridge: {**control(bridge), **facade.service.handlers(bridge)}),
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(keep_connected, host, config.bootstrap)
                    nursery.start_soon(keep_below_watermark, store)
                    yield Node(config, host, store, exchange, files)
                    nursery.cancel_scope.cancel()


def _check_addresses(config: NodeConfig) -> None:
    for address in config.bootstrap:
        parse_with_peer(address)
    for address in config.listen:
        parse(address)
    public = [address for address in config.listen if not address.startswith(LOOPBACK)]
    if public and not config.open:
        raise InvalidArgument(
            f"listening on {public[0]} lets every peer that reaches it fetch what it can name; "
            "add --open if that network is yours",
            subject=public[0],
        )


@contextmanager
def _locked_repo(repo: Path) -> Iterator[None]:
    """The repo, made when missing and locked against a second process; the lock goes with the process."""
    try:
        repo.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (repo / "repo.lock").open("a+")
    except OSError as exc:
        raise FailedPrecondition(f"cannot use {repo} as repo: {exc.strerror}", subject=str(repo)) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Unavailable(
                f"repo {repo} is in use by process {lock.read().strip() or '?'}; stop it or choose another --repo",
                subject=str(repo),
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m ipcs.node`."""
    parser = argparse.ArgumentParser(
        prog="python -m ipcs.node",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repo", type=Path, metavar="DIR", help="identity, lock and store (default: $IPCS_PATH or ~/.ipcs)"
    )
    parser.add_argument(
        "--listen",
        action="append",
        metavar="MULTIADDR",
        help=f"where to listen for peers, repeatable (default: {DEFAULT_LISTEN[0]}; port 0 takes a free one)",
    )
    parser.add_argument(
        "--bootstrap",
        action="append",
        default=[],
        metavar="MULTIADDR",
        help="a peer to stay connected to, ending in /p2p/<peer id>; repeatable",
    )
    parser.add_argument("--socket", type=Path, metavar="PATH", help="unix socket, mode 0660 (default: REPO/ipcs.sock)")
    parser.add_argument(
        "--open", action="store_true", help="allow --listen beyond loopback: any peer that reaches it may fetch"
    )
    parser.add_argument(
        "--adopt",
        choices=[mode.value for mode in Mode],
        default=DEFAULT_ADOPT,
        help="what containerd is shown besides what it wrote: nothing, blobs that are whole here, or also those of "
        f"connected peers (default: {DEFAULT_ADOPT})",
    )
    parser.add_argument(
        "--containerd",
        type=Path,
        metavar="ADDRESS",
        help="socket of containerd's own API (/run/containerd/containerd.sock); without it no layer is promised before "
        "it is whole here, since there would be no way back to its registry",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="HOST=URL",
        help="where the registry HOST answers, if not at https://HOST; repeatable",
    )
    parser.add_argument(
        "--storage-max",
        type=parse_size,
        default=0,
        metavar="SIZE",
        help="disk that the store may take, e.g. 200GB: above 80 %% of it cache is collected down to 60 %% (default: "
        "half the file system)",
    )
    parser.add_argument(
        "--upload-rate",
        type=parse_size,
        default=0,
        metavar="SIZE",
        help="bytes a second that all peers together are sent, e.g. 10MB (default: no limit)",
    )
    parser.add_argument(
        "--durability",
        choices=("commit", "none"),
        default="commit",
        help="commit: a committed blob and a reference survive power loss; none: a crash of the node only",
    )
    parser.add_argument(
        "--hash-on-read",
        action="store_true",
        help="hash each block again when it is read: one that rotted on the disk is put aside and fetched anew",
    )
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")
    return parser


def config_of(args: argparse.Namespace, environ: Mapping[str, str]) -> NodeConfig:
    """The configuration that the command line means."""
    return NodeConfig(
        repo=(args.repo or default_repo(environ)).absolute(),
        listen=tuple(args.listen or DEFAULT_LISTEN),
        bootstrap=tuple(args.bootstrap),
        socket=args.socket.absolute() if args.socket else None,
        open=args.open,
        adopt=args.adopt,
        containerd=args.containerd.absolute() if args.containerd else None,
        origins=dict(map(parse_origin, args.origin)),
        storage_max=args.storage_max,
        upload_rate=args.upload_rate,
        durability=args.durability,
        hash_on_read=args.hash_on_read,
    )


async def _run(config: NodeConfig, *, as_json: bool) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_node(config) as node:
            ready = {"id": node.peer_id, "addresses": list(node.addresses), "socket": str(config.socket_path)}
            text = json.dumps(ready) if as_json else f"ready: {' '.join(node.addresses)} socket {ready['socket']}"
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            _tell_systemd("READY=1")
            async for _signal in signals:
                break
            _tell_systemd("STOPPING=1")


def _tell_systemd(state: str) -> None:
    """sd_notify(3), for units of Type=notify; nothing when systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main(argv: list[str] | None = None) -> int:
    """`python -m ipcs.node`; its exit code."""
    args = build_parser().parse_args(argv)
    keep_buffers()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # py-libp2p reports every peer that goes away as an error, several times; ipcs.net says what matters of it.
    logging.getLogger("ipcs.content").setLevel(logging.INFO)  # one line for each blob that a peer or a registry brought
    logging.getLogger("libp2p").setLevel(logging.CRITICAL + 1)
    code = 0
    try:
        trio.run(lambda: _run(config_of(args, os.environ), as_json=args.json))
    except* IpcsError as group:
        error = _first(group)
        sys.stderr.write(f"ipcs.node: {error.message}\n")
        code = error.exit_code
    return code


def _first(group: BaseExceptionGroup[IpcsError]) -> IpcsError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


if __name__ == "__main__":
    sys.exit(main())
