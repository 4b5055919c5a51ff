"""What is moved: sizes of real images, spread over providers, in leaves of two sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

MB = 1_000_000
KIB = 1024


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file of random bytes, fetched by a node that has none of it."""

    label: str
    size: int
    """Bytes of the file."""
    leaf: int = 256 * KIB
    """Bytes of a leaf."""
    providers: int = 1
    thirds: bool = False
    """Each provider holds the inner nodes and its share of the leaves, so that none can serve the whole."""
    stall: float = 30.0
    """Seconds after which a fetch is given up and tried again with a fresh node: Kubo 0.22 sometimes never ends."""
    durable: bool = False
    """On disk with what the contender calls a durable write; else on /dev/shm without fsync."""

    @property
    def name(self) -> str:
        held = f"{self.providers} providers, " + ("a third each" if self.thirds else "all full")
        where = "disk, durable" if self.durable else "shm"
        return f"{self.label}, {self.leaf // KIB} KiB leaves, {held if self.providers > 1 else '1 provider'}, {where}"


ALPINE = Scenario("alpine 2.76 MB", 2_760_000)
GO_IPFS = Scenario("go-ipfs 23.5 MB", 23_500_000)
UBUNTU = Scenario("ubuntu 28.9 MB", 28_900_000)
GOLANG = Scenario("golang 296 MB", 296 * MB)
BIG = Scenario("3 GB", 3000 * MB, stall=120.0)
TINY = Scenario("5,000 x 4 KiB", 5000 * 4 * KIB, leaf=4 * KIB, stall=6.0)
SMALL = Scenario("30 MB", 30 * MB)

QUICK = (
    ALPINE,
    GO_IPFS,
    GOLANG,
    replace(GOLANG, providers=3, thirds=True),
    TINY,
)


def _spreads(scenario: Scenario) -> tuple[Scenario, ...]:
    return (scenario, replace(scenario, providers=3, thirds=True), replace(scenario, providers=3))


FULL = (
    *(
        replace(spread, leaf=leaf)
        for scenario in (ALPINE, GO_IPFS, UBUNTU, GOLANG)
        for leaf in (256 * KIB, 1024 * KIB)
        for spread in _spreads(scenario)
    ),
    *_spreads(TINY),
    replace(GOLANG, durable=True),
    SMALL,
    BIG,
)
