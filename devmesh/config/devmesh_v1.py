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
    """What `devmesh fault inject` writes. `until` is seconds since the epoch.

    `abort` and `delay` at the callee's inbound side; `partition` is the other side, a service or workload as `target` is; `pause` holds
    the target's apps, `kill` has ended them once, `hits` of them: these two are the runtime's work.
    """

    id: str = ""
    target: str
    abort: FaultAbort | None = None
    delay: FaultDelay | None = None
    partition: str | None = None
    pause: bool | None = None
    kill: bool | None = None
    hits: int | None = None
    from_: str | None = None
    path: str | None = None
    headers: dict[str, str] | None = None
    until: float | None = None
