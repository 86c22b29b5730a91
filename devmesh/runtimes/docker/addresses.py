"""Which subnet each network gets and which address each container has on it, decided before anything starts.

The topology, the bootstraps and the hosts files name addresses, so they cannot wait for the engine's own allocation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from devmesh.errors import DevmeshError
from devmesh.runtimes.claims import claim

# Outside Docker's own default pools (172.17-31.0.0/16, 192.168.0.0/16), so that the two never race for one.
POOL = IPv4Network("10.210.0.0/15")
SMALL, LARGE = 24, 22
# A small subnet's lower half holds this many fixed addresses; the engine hands out the upper half.
SMALL_CAPACITY = 120


@dataclass(frozen=True, slots=True)
class Subnet:
    """One network's range. `ours` False: the user's file or an existing network says it, and the engine hands out from its lower end."""

    network: IPv4Network
    ours: bool = True
    used: frozenset[IPv4Address] = frozenset()
    gateway: IPv4Address | None = None

    @property
    def dynamic(self) -> IPv4Network:
        """Where the engine may choose from: the upper half."""
        return list(self.network.subnets(1))[1]

    def fixed(self) -> Iterator[IPv4Address]:
        """Addresses to give out: from below in our own ranges, from above in others, where the engine chooses from below."""
        lower = next(self.network.subnets(1)) if self.ours else self.network
        taken = self.used | {self.gateway or self.network.network_address + 1, self.network.network_address, self.network.broadcast_address}
        hosts = lower if self.ours else (self.network[-index] for index in range(1, self.network.num_addresses))
        return (address for address in hosts if address not in taken)


@dataclass(slots=True)
class Addresses:
    """Gives each (network, container) its address, always in the same order, so that an unchanged file keeps its addresses."""

    subnets: Mapping[str, Subnet]
    _given: dict[tuple[str, str], str] = field(default_factory=dict)
    _left: dict[str, Iterator[IPv4Address]] = field(default_factory=dict)

    def of(self, network: str, container: str) -> str:
        """Raises DevmeshError when the network is full."""
        key = (network, container)
        if key not in self._given:
            left = self._left.setdefault(network, self.subnets[network].fixed())
            found = next(left, None)
            if found is None:
                subnet = self.subnets[network].network
                raise DevmeshError(
                    f"network {network} ({subnet}) has no address left for {container}", "give it a larger subnet in the compose file"
                )
            self._given[key] = str(found)
        return self._given[key]


Claim = Callable[[IPv4Network], bool]


def claim_subnet(claims: ExitStack, network: IPv4Network) -> bool:
    """Keep a range from every other mesh of this machine while `claims` last; False when another is about to have (a part of) it.

    The engine knows of it only when the network is made, which is seconds after it was chosen.
    """
    with ExitStack() as own:
        for part in network.subnets(new_prefix=SMALL):
            held = claim(f"subnet-{part}")
            if held is None:
                return False
            own.enter_context(held)
        claims.push(own.pop_all())
    return True


def choose_subnets(
    names: Iterable[str], taken: Iterable[IPv4Network], containers: int, claimed: Claim = lambda _: True
) -> dict[str, Subnet]:
    """The first ranges of the pool that are free and that we can claim. Raises DevmeshError when there is none."""
    busy = list(taken)
    out: dict[str, Subnet] = {}
    for name in names:
        ranges = POOL.subnets(new_prefix=prefix_for(containers))
        found = next((one for one in ranges if not any(one.overlaps(other) for other in busy) and claimed(one)), None)
        if found is None:
            raise DevmeshError(f"no free subnet in {POOL} for network {name}", "docker network prune removes networks that nothing uses")
        busy.append(found)
        out[name] = Subnet(found)
    return out


def prefix_for(containers: int) -> int:
    return SMALL if containers <= SMALL_CAPACITY else LARGE


def host_routes(table: Path = Path("/proc/net/route")) -> list[IPv4Network]:
    """What this machine routes somewhere (proc(5), little-endian hexadecimal), except the default; none where there is no such file."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [
        ipaddress.IPv4Network((int.from_bytes(bytes.fromhex(one[1]), "little"), int(one[7], 16).bit_count()), strict=False)
        for one in fields
        if one[1] != "00000000"
    ]
