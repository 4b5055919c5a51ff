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
    most_rounds: int = 100
    """Runs of each contender at most, where one takes long."""
    alone: bool = False
    """Only ipcs: the stores of two contenders do not fit into the memory of a machine of 24 GB."""

    @property
    def name(self) -> str:
        held = f"{self.providers} providers, " + ("a third each" if self.thirds else "all full")
        where = "disk, durable" if self.durable else "shm"
        return f"{self.label}, {self.leaf // KIB} KiB leaves, {held if self.providers > 1 else '1 provider'}, {where}"


ALPINE = Scenario("alpine 2.76 MB", 2_760_000)
GO_IPFS = Scenario("go-ipfs 23.5 MB", 23_500_000)
UBUNTU = Scenario("ubuntu 28.9 MB", 28_900_000)
GOLANG = Scenario("golang 296 MB", 296 * MB)
BIG = Scenario("3 GB", 3000 * MB, stall=60.0)
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
        for scenario in (GOLANG, GO_IPFS)
        for leaf in (256 * KIB, 1024 * KIB)
        for spread in _spreads(scenario)
    ),
    replace(GOLANG, durable=True),
    *_spreads(TINY),
    SMALL,
    BIG,
    *(
        replace(spread, leaf=leaf)
        for scenario in (ALPINE, UBUNTU)
        for leaf in (256 * KIB, 1024 * KIB)
        for spread in _spreads(scenario)
    ),
    replace(BIG, leaf=1024 * KIB, most_rounds=2),
    *(
        replace(BIG, leaf=leaf, providers=3, thirds=thirds, alone=not thirds, most_rounds=2)
        for leaf in (256 * KIB, 1024 * KIB)
        for thirds in (True, False)
    ),
)
"""All sizes, spreads and leaves; those with an aim in docs/performance.md first, for a session that is cut short."""
