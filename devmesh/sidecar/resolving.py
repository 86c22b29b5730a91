"""Names of STRICT_DNS clusters: each is asked for at once and then again and again, and all of its addresses are endpoints (Envoy's strict_dns_cluster.cc)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from devmesh.sidecar.balancing import key_of
from devmesh.sidecar.config import Cluster, Endpoint
from devmesh.sidecar.target import is_ip

log = logging.getLogger(__name__)
# IPv4, as dns_lookup_family of istiod's clusters says. None: nobody could say; nothing: the name has no address.
Lookup = Callable[[str], Awaitable[tuple[str, ...] | None]]
Sleep = Callable[[float], Awaitable[None]]
WITHOUT_ADDRESS = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


async def machine_lookup(host: str) -> tuple[str, ...] | None:
    """Ask the machine's resolver; its order means nothing, so that only other addresses are a change."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return () if error.errno in WITHOUT_ADDRESS else None
    except (OSError, UnicodeError):
        return None
    return tuple(sorted({str(address[0]) for *_, address in found}))


class Resolving:
    """`changed` is told when other addresses are known of a name."""

    def __init__(self, changed: Callable[[str], None], lookup: Lookup = machine_lookup, sleep: Sleep = asyncio.sleep) -> None:
        self._changed, self._lookup, self._sleep = changed, lookup, sleep
        self._known: dict[str, tuple[str, ...]] = {}
        self._intervals: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._made: dict[str, tuple[Cluster, tuple[Endpoint, ...]]] = {}

    def configure(self, clusters: Mapping[str, Cluster]) -> None:
        """Ask for new names; a name that no cluster has any more is forgotten."""
        intervals: dict[str, float] = {}
        for cluster in clusters.values():
            for host in names_of(cluster):
                intervals[host] = min(cluster.dns_refresh_rate, intervals.get(host, cluster.dns_refresh_rate))
        self._intervals = intervals
        self._made = {name: made for name, made in self._made.items() if clusters.get(name) is made[0]}
        for host in [host for host in self._tasks if host not in intervals]:
            self._tasks.pop(host).cancel()
            self._known.pop(host, None)
        for host in intervals:
            if host not in self._tasks:
                self._tasks[host] = asyncio.get_running_loop().create_task(self._follow(host), name=f"resolve {host}")

    async def _follow(self, host: str) -> None:
        while True:
            found = await self._lookup(host)
            if found is None:
                log.info("%s cannot be resolved now: its addresses stay", host)
            elif found != self._known.get(host):
                self._known[host] = found
                self._made.clear()
                self._changed(host)
            await self._sleep(self._intervals.get(host, 60.0))

    def endpoints(self, cluster: Cluster) -> tuple[Endpoint, ...]:
        """The same ones until something changes. A name of which nothing is known yet stays a name, for the dialer to resolve."""
        if cluster.kind != "STRICT_DNS":
            return cluster.endpoints
        made = self._made.get(cluster.name)
        if made is None or made[0] is not cluster:
            made = self._made[cluster.name] = (cluster, self._resolved(cluster))
        return made[1]

    def _resolved(self, cluster: Cluster) -> tuple[Endpoint, ...]:
        found: dict[str, Endpoint] = {}
        for endpoint in cluster.endpoints:
            for address in self._known.get(endpoint.address, (endpoint.address,)):
                one = endpoint if address == endpoint.address else replace(endpoint, address=address)
                found.setdefault(key_of(one), one)
        return tuple(found.values())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def names_of(cluster: Cluster) -> list[str]:
    if cluster.kind != "STRICT_DNS":
        return []
    return [endpoint.address for endpoint in cluster.endpoints if not is_ip(endpoint.address)]
