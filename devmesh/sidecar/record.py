"""What telemetry is told when an exchange ends. Mutable while the exchange lives, then handed over whole."""

from dataclasses import dataclass, field
from enum import Enum, IntFlag

from devmesh.sidecar.message import Headers


class Direction(Enum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Flag(IntFlag):
    """Envoy's response flags in its printing order (reference: envoyproxy.io access log `%RESPONSE_FLAGS%`)."""

    NONE = 0
    LH = 1
    UH = 2
    UT = 4
    LR = 8
    UR = 16
    UF = 32
    UC = 64
    UO = 128
    NR = 256
    DI = 512
    FI = 1024
    RL = 2048
    UAEX = 4096
    RLSE = 8192
    DC = 16384
    URX = 32768
    SI = 65536
    IH = 131072
    DPE = 262144
    UMSDR = 524288
    DT = 1048576
    UPE = 2097152
    NC = 4194304
    OM = 8388608


@dataclass(frozen=True, slots=True)
class TraceContext:
    trace_id: bytes  # 16 bytes
    span_id: bytes  # 8 bytes
    parent_id: bytes | None
    sampled: bool
    tracestate: bytes = b""


@dataclass(slots=True)
class AttemptRecord:
    """One try at one endpoint."""

    start_ns: int
    end_ns: int = 0
    endpoint: str = ""  # "127.7.0.3:9080"
    cluster: str = ""
    status: int = 0
    flags: Flag = Flag.NONE
    error: str = ""
    span_id: bytes = b""  # the client span of this attempt


@dataclass(slots=True)
class Record:
    """One exchange. Times: `start_ns` wall clock ns since the epoch; `duration` seconds, monotonic."""

    direction: Direction
    start_ns: int
    method: bytes = b""
    target: bytes = b""  # as received: before rewrites
    authority: bytes = b""
    protocol: bytes = b"HTTP/1.1"
    request_headers: Headers = field(default_factory=list)
    status: int = 0
    flags: Flag = Flag.NONE
    details: str = ""  # %RESPONSE_CODE_DETAILS%
    termination_details: str = ""
    transport_failure: str = ""
    duration: float = 0.0
    upstream_service_time: float | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    upstream_host: str = ""
    upstream_cluster: str = ""
    upstream_local: str = ""
    downstream_local: str = ""
    downstream_remote: str = ""
    requested_server_name: str = ""
    route_name: str = ""
    route_origin: str = ""  # metadata istio.config of the route
    fault_id: str = ""  # devmesh Fault that fired
    request_id: bytes = b""
    mtls: bool = False
    peer_principal: str = ""  # SPIFFE ID of the other side, downstream's for inbound, upstream's for outbound
    peer_metadata: bytes = b""  # the other side's x-envoy-peer-metadata value, as received
    trace: TraceContext | None = None  # this hop's span (server for inbound, client for outbound)
    attempts: list[AttemptRecord] = field(default_factory=list)
