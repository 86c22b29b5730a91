"""`devmesh.dev/v1`: what Istio lacks."""

from devmesh.config.istio_types import Message


class FaultAbort(Message):
    http_status: int
    percentage: float = 100.0


class FaultDelay(Message):
    """`fixed_delay` in seconds."""

    fixed_delay: float
    percentage: float = 100.0


class Fault(Message):
    """What `devmesh fault inject` writes: at the callee's inbound side. `until` is seconds since the epoch."""

    id: str = ""
    target: str
    abort: FaultAbort | None = None
    delay: FaultDelay | None = None
    from_: str | None = None
    path: str | None = None
    headers: dict[str, str] | None = None
    until: float | None = None
