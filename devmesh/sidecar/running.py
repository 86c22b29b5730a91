"""What a running sidecar is made of, for those who look at it (admin, config_dump)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from devmesh.ca.client import WorkloadIdentity
from devmesh.sidecar.agent import Agent
from devmesh.sidecar.bootstrap import Bootstrap
from devmesh.sidecar.proxy import Proxy
from devmesh.sidecar.telemetry.recorder import Telemetry
from devmesh.sidecar.tls import Credentials


class Phase(Enum):
    """Envoy's ServerInfo.State."""

    INITIALIZING = "INITIALIZING"
    LIVE = "LIVE"
    DRAINING = "DRAINING"


class ProxyIdentity:
    """The workload's SVID as the data path wants it; one value per rotation, because contexts are cached by it."""

    def __init__(self, identity: WorkloadIdentity) -> None:
        self._identity = identity
        self._source: object = None
        self._current: Credentials | None = None

    @property
    def credentials(self) -> Credentials | None:
        source = self._identity.credentials
        if source is not self._source:
            self._source = source
            self._current = Credentials(source.certificate_chain, source.private_key, source.trust_bundle) if source else None
        return self._current


@dataclass(slots=True)
class Running:
    """`agent` is None with a snapshot file, `identity` without a CA."""

    bootstrap: Bootstrap
    proxy: Proxy
    telemetry: Telemetry
    identity: WorkloadIdentity | None
    agent: Agent | None = None
    wall_ns: Callable[[], int] = time.time_ns
    started_ns: int = 0
    updated_ns: int = 0
    listening: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def phase(self) -> Phase:
        if self.proxy.draining or self.stop.is_set():
            return Phase.DRAINING
        certified = self.identity is None or self.identity.credentials is not None
        return Phase.LIVE if self.proxy.config.version and certified and self.listening else Phase.INITIALIZING

    def certificates(self) -> Credentials | None:
        """Give what the proxy presents to its peers."""
        return self.proxy.contexts.credentials("default")

    def updated(self) -> str:
        return rfc3339(self.updated_ns)


def rfc3339(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
