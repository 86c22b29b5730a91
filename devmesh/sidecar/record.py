"""What telemetry is told when an exchange ends. Mutable while the exchange lives, then handed over whole."""

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Final, NamedTuple

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


NO_FLAGS: Final = Flag.NONE  # an enum's attribute is a search each time


class TraceContext(NamedTuple):
    trace_id: bytes  # 16 bytes
    span_id: bytes  # 8 bytes
    parent_id: bytes | None
    sampled: bool
    tracestate: bytes = b""


@dataclass(slots=True, init=False)
class AttemptRecord:
    """One try at one endpoint."""

    start_ns: int
    end_ns: int
    endpoint: str  # "127.7.0.3:9080"
    cluster: str
    status: int
    error: str
    span_id: bytes  # the client span of this attempt

    # Written out, as Record's: one of each is made per request, and what the dataclass would generate is never compiled.
    def __init__(
        self,
        start_ns: int,
        end_ns: int = 0,
        endpoint: str = "",
        cluster: str = "",
        status: int = 0,
        error: str = "",
        span_id: bytes = b"",
    ) -> None:
        self.start_ns, self.end_ns, self.endpoint, self.cluster = start_ns, end_ns, endpoint, cluster
        self.status, self.error, self.span_id = status, error, span_id


@dataclass(slots=True, init=False)
class Record:
    """One exchange. Times: `start_ns` wall clock ns since the epoch; `duration` seconds, monotonic."""

    direction: Direction
    start_ns: int
    method: bytes
    target: bytes  # as received: before rewrites
    authority: bytes  # after rewrites, as %REQ(:AUTHORITY)%
    protocol: bytes
    request_headers: Headers
    status: int
    flags: Flag
    details: str  # %RESPONSE_CODE_DETAILS%
    termination_details: str
    transport_failure: str
    duration: float
    upstream_service_time: float | None
    bytes_received: int
    bytes_sent: int
    upstream_host: str
    upstream_cluster: str
    upstream_local: str
    downstream_local: str
    downstream_remote: str
    requested_server_name: str
    route_name: str
    route_origin: str  # metadata istio.config of the route
    route_source: str  # file:line:column of the rule that it is
    fault_id: str  # devmesh Fault that fired
    request_id: bytes
    mtls: bool
    peer_principal: str  # SPIFFE ID of the other side, downstream's for inbound, upstream's for outbound
    peer_metadata: bytes  # the other side's x-envoy-peer-metadata value, as received
    trace: TraceContext | None  # this hop's span (server for inbound, client for outbound)
    attempts: list[AttemptRecord]

    def __init__(
        self,
        direction: Direction,
        start_ns: int,
        method: bytes = b"",
        target: bytes = b"",
        authority: bytes = b"",
        protocol: bytes = b"HTTP/1.1",
    ) -> None:
        self.direction, self.start_ns = direction, start_ns
        self.method, self.target, self.authority, self.protocol = method, target, authority, protocol
        self.request_headers = []
        self.attempts = []
        self.status = self.bytes_received = self.bytes_sent = 0
        self.flags = NO_FLAGS
        self.details = self.termination_details = self.transport_failure = self.upstream_host = self.upstream_cluster = (
            self.upstream_local
        ) = ""
        self.downstream_local = self.downstream_remote = self.requested_server_name = self.fault_id = self.peer_principal = ""
        self.route_name = self.route_origin = self.route_source = ""
        self.duration = 0.0
        self.upstream_service_time = self.trace = None
        self.request_id = self.peer_metadata = b""
        self.mtls = False
