"""Counters of the facade: what `ipcs stat` and the log tell of adoption."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

INFO_SAMPLES = 4096
"""Latest Info calls over which percentiles are taken."""


@dataclass(slots=True)
class AdoptionStatistics:
    """Bytes by where they came from, and what became of promises. Written by one thread at a time each; read freely."""

    bytes_from_peers: int = 0
    bytes_from_origin: int = 0
    bytes_reused: int = 0
    """Bytes of adopted blobs that were in the store already."""
    adopted: int = 0
    """Blobs shown to containerd without a Write."""
    promises_made: int = 0
    promises_kept: int = 0
    promises_broken: int = 0
    info_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=INFO_SAMPLES))
    """Time inside the server of the latest Info calls that were not answered from the local records."""

    def as_json(self) -> dict[str, int | float]:
        """Plain numbers; seconds for times."""
        samples = sorted(self.info_seconds)
        return {
            "bytes_from_peers": self.bytes_from_peers,
            "bytes_from_origin": self.bytes_from_origin,
            "bytes_reused": self.bytes_reused,
            "adopted": self.adopted,
            "promises_made": self.promises_made,
            "promises_kept": self.promises_kept,
            "promises_broken": self.promises_broken,
            "promises_open": self.promises_made - self.promises_kept - self.promises_broken,
            "info_p50_seconds": samples[len(samples) // 2] if samples else 0.0,
            "info_p99_seconds": samples[len(samples) * 99 // 100] if samples else 0.0,
        }
