"""Which registries a layer can be had from if no peer brings it: found in containerd's labels, and tried.

A label names the repository that containerd pulled a manifest from, with containerd's credentials. We have none, so a
private repository is no way back. It is asked for the manifest by HEAD: that takes the same right as its blobs do, and
costs a registry as little as a request can.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..errors import IpcsError
from .containerd import ContainerdAPI
from .origin import Access, Source, try_manifest

log = logging.getLogger(__name__)

OPEN_FOR = 300.0
"""Seconds for which a repository that let us in is not asked again: rights seldom change within a deployment."""

CLOSED_FOR = 30.0
"""Seconds for which one that did not is taken at its word: an operator repairs it and pulls again."""

MAX_KNOWN = 4096
"""Manifests, and repositories, that are remembered."""

TRIES = 8
"""Registries that are asked at once: each holds a thread for some seconds when a registry is silent."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    access: Access
    until: float


class WaysBack:
    """Asks containerd and registries, each question once at a time. From the trio thread; tasks run in `nursery`."""

    def __init__(self, api: ContainerdAPI | None, origins: Mapping[str, str], nursery: trio.Nursery) -> None:
        self._api = api
        self._origins = origins
        self._nursery = nursery
        self._tries = trio.CapacityLimiter(TRIES)
        self._sources: OrderedDict[str, list[Source]] = OrderedDict()
        self._verdicts: OrderedDict[Source, _Verdict] = OrderedDict()
        self._asking: dict[str, trio.Event] = {}

    def begin(self, manifest: str) -> trio.Event:
        """Start finding out about the blobs of `manifest`; the event is set when that is done."""
        done = self._asking.get(manifest)
        if done is None:
            done = trio.Event()
            if self._api is None or self._is_known(manifest):
                done.set()
            else:
                self._asking[manifest] = done
                self._nursery.start_soon(self._find_out, self._api, manifest, done)
        return done

    async def usable(self, manifest: str, deadline: float, *, alone: bool) -> list[Source]:
        """Repositories that give us the blobs of `manifest`, as far as is known at `deadline` (trio's clock).

        One that is silent does not count when a promise would rest on it `alone`, and one that refused never does. One
        whose answer is still on its way counts: far registries need longer than an Info may take.
        """
        with trio.move_on_at(deadline):
            await self.begin(manifest).wait()
        known = {source: self._verdicts.get(source) for source in self._sources.get(manifest, ())}
        useless = (Access.REFUSED, Access.SILENT) if alone else (Access.REFUSED,)
        return [source for source, verdict in known.items() if verdict is None or verdict.access not in useless]

    def _is_known(self, manifest: str) -> bool:
        now = trio.current_time()
        found = self._sources.get(manifest, [])
        verdicts = [self._verdicts[source] for source in found if source in self._verdicts]
        return bool(found) and len(verdicts) == len(found) and all(verdict.until > now for verdict in verdicts)

    async def _find_out(self, api: ContainerdAPI, manifest: str, done: trio.Event) -> None:
        try:
            found = self._sources.get(manifest)
            if not found:
                found = self._sources[manifest] = await trio.to_thread.run_sync(api.sources, manifest)
            async with trio.open_nursery() as nursery:
                for source in found:
                    nursery.start_soon(self._try, source, manifest)
        except IpcsError as exc:
            log.info("no way back for what %s names: %s", manifest, exc.message)
        except Exception:  # a bug here costs adoptions, not the node
            log.exception("looking for a way back for %s failed in a way that nobody foresaw", manifest)
        finally:
            del self._asking[manifest]
            done.set()
            for known in (self._sources, self._verdicts):
                while len(known) > MAX_KNOWN:
                    known.popitem(last=False)

    async def _try(self, source: Source, manifest: str) -> None:
        now = trio.current_time()
        old = self._verdicts.get(source)
        if old is not None and old.until > now:
            return
        access, why = await trio.to_thread.run_sync(  # type: ignore[call-arg]  # trio-typing lags behind trio
            try_manifest, source, manifest, self._origins, abandon_on_cancel=True, limiter=self._tries
        )
        self._verdicts[source] = _Verdict(access, now + (OPEN_FOR if access is Access.OPEN else CLOSED_FOR))
        name = f"{source.host}/{source.repository}"
        if access is Access.REFUSED:
            log.warning("%s is no way back (%s): its layers are promised to nobody (docs/content-flow.md)", name, why)
        elif access is Access.SILENT:
            log.info("%s does not answer (%s); if it does elsewhere, say so with --origin", name, why)
