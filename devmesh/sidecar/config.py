"""xDS JSON -> frozen runtime values: the one place where proto-JSON is read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Protocol


class ConfigError(Exception):
    """A resource that cannot be run; becomes a NACK. `resource` is its xDS name."""

    def __init__(self, resource: str, message: str) -> None:
        super().__init__(f"{resource}: {message}")
        self.resource = resource


class Predicate(Protocol):
    """A compiled matcher over one bytes value (None: absent)."""

    def __call__(self, value: bytes | None) -> bool: ...


@dataclass(frozen=True, slots=True)
class HeaderMatcher:
    name: bytes  # lower-case; b":method", b":authority", b":path", b":scheme" too
    matches: Predicate
    inverted: bool = False  # already in `matches`; of several values one must match, or all when inverted


@dataclass(frozen=True, slots=True)
class PathMatcher:
    matches: Predicate  # over the path without query
    prefix: bytes | None  # for prefix_rewrite
    text: str  # "prefix:/a" for explain and config_dump


@dataclass(frozen=True, slots=True)
class RouteMatch:
    path: PathMatcher
    headers: tuple[HeaderMatcher, ...] = ()
    query: tuple[HeaderMatcher, ...] = ()
    runtime_fraction: float | None = None  # 0..1


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    name: bytes
    value: bytes  # may hold %COMMAND% operators, expanded by filters.headers
    append: str  # APPEND_IF_EXISTS_OR_ADD | OVERWRITE_IF_EXISTS_OR_ADD | ADD_IF_ABSENT | OVERWRITE_IF_EXISTS
    keep_empty: bool = False  # else a value that comes out empty is left out


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    request_add: tuple[HeaderEdit, ...] = ()
    request_remove: tuple[bytes, ...] = ()
    response_add: tuple[HeaderEdit, ...] = ()
    response_remove: tuple[bytes, ...] = ()


NO_EDITS: Final = HeaderEdits()  # the parser gives this one for every empty set, so that `is` tells them


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    retry_on: frozenset[str]
    num_retries: int
    per_try_timeout: float | None
    retriable_status_codes: frozenset[int]
    base_interval: float = 0.025
    max_interval: float = 0.25
    previous_hosts: bool = False
    host_selection_attempts: int = 1
    retriable_headers: tuple[HeaderMatcher, ...] = ()


@dataclass(frozen=True, slots=True)
class HashPolicy:
    kind: str  # header | cookie | source_ip | query
    name: bytes
    cookie_ttl: float | None = None
    cookie_path: bytes = b""
    terminal: bool = False
    cookie_attributes: bytes = b""  # "; SameSite=Strict; Secure"


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    name: str
    weight: int
    edits: HeaderEdits = NO_EDITS
    host_rewrite: bytes | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    cluster: str
    fraction: float  # 0..1


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    allow_origin: tuple[Predicate, ...]
    allow_methods: bytes
    allow_headers: bytes
    expose_headers: bytes
    max_age: bytes
    allow_credentials: bool
    forward_not_matching_preflights: bool = True


@dataclass(frozen=True, slots=True)
class FaultPolicy:
    delay: float | None = None  # seconds
    delay_fraction: float = 0.0
    abort_status: int | None = None
    abort_grpc_status: int | None = None
    abort_fraction: float = 0.0
    headers: tuple[HeaderMatcher, ...] = ()
    fault_id: str = ""  # metadata filter_metadata.devmesh.fault


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Forward to one of the weighted clusters (one cluster = one weight of 1)."""

    clusters: tuple[WeightedCluster, ...]
    total_weight: int
    timeout: float | None  # None: no limit
    idle_timeout: float | None = None
    max_stream_duration: float | None = None
    retry: RetryPolicy | None = None
    prefix_rewrite: bytes | None = None
    regex_rewrite: Callable[[bytes], bytes] | None = None  # over the path without query
    host_rewrite: bytes | None = None
    hash_policies: tuple[HashPolicy, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    upgrade_websocket: bool | None = None
    timeout_ms: bytes = field(init=False)  # as x-envoy-expected-rq-timeout-ms says it

    def __post_init__(self) -> None:
        object.__setattr__(self, "timeout_ms", b"%d" % int((self.timeout or 0) * 1000))


@dataclass(frozen=True, slots=True)
class RedirectAction:
    status: int
    host: bytes | None = None
    path: bytes | None = None
    prefix: bytes | None = None
    scheme: bytes | None = None
    https: bool = False
    port: int | None = None
    strip_query: bool = False
    regex: Callable[[bytes], bytes] | None = None  # as RouteAction.regex_rewrite


@dataclass(frozen=True, slots=True)
class DirectResponseAction:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    match: RouteMatch
    action: RouteAction | RedirectAction | DirectResponseAction
    edits: HeaderEdits = NO_EDITS
    fault: FaultPolicy | None = None
    cors: CorsPolicy | None = None
    origin: str = ""  # metadata istio.config
    source: str = ""  # metadata devmesh.source: the line of YAML
    operation: str = ""  # decorator.operation


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str
    domains: tuple[bytes, ...]
    routes: tuple[Route, ...]
    require_tls: bool = False
    include_attempt_count: bool = False
    edits: HeaderEdits = NO_EDITS


@dataclass(frozen=True, slots=True)
class RouteTable:
    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    exact: dict[bytes, VirtualHost]  # domain (lower-case) -> host, for routing.select_virtual_host
    wildcards: tuple[tuple[bytes, VirtualHost], ...]  # longest first: b"*.x", b"x.*"
    default: VirtualHost | None  # domain "*"
    ignore_port_in_host: bool = False
    edits: HeaderEdits = NO_EDITS
    has_edits: bool = field(init=False)  # its own, or those of anything in it

    def __post_init__(self) -> None:
        routes = [route for host in self.virtual_hosts for route in host.routes]
        clusters = [cluster for route in routes if isinstance(route.action, RouteAction) for cluster in route.action.clusters]
        edits = [self.edits, *(host.edits for host in self.virtual_hosts), *(r.edits for r in routes), *(c.edits for c in clusters)]
        object.__setattr__(self, "has_edits", any(each is not NO_EDITS for each in edits))


@dataclass(frozen=True, slots=True)
class TlsContext:
    """`secret` and `validation` name SDS secrets (`default`, `ROOTCA`) or, in snapshots, some of `secrets`.

    Files have Istio's names: `file-cert:CHAIN~KEY`, `file-root:PATH`; `file-root:system` is the system's store.
    """

    secret: str
    validation: str | None
    sans: tuple[tuple[str, str], ...] = ()  # (exact|prefix|suffix|..., value) on any SAN; empty: whoever the roots vouch for
    alpn: tuple[bytes, ...] = ()
    sni: str = ""
    require_client_certificate: bool = False
    min_version: str = "TLSv1_2"
    max_version: str = "TLSv1_3"
    more_secrets: tuple[str, ...] = ()  # of a server with several certificates: those after `secret`
    cipher_suites: tuple[str, ...] = ()  # up to TLS 1.2; empty: the library's own
    certificate_hashes: tuple[str, ...] = ()  # SHA-256 in lower-case hex: the peer's certificate is one of these, or
    certificate_spkis: tuple[str, ...] = ()  # its public key one of these (base64 of SHA-256); both empty: any
    insecure: bool = False  # DestinationRule SIMPLE without CA: server not verified, as Envoy without validation_context


@dataclass(frozen=True, slots=True)
class HttpManager:
    """An HttpConnectionManager."""

    stat_prefix: str
    route_table: RouteTable
    filters: tuple[str, ...]  # names in order, `istio.*` left out
    fault: FaultPolicy | None = None  # the filter's own, under every route
    server_name: bytes = b"envoy"
    use_remote_address: bool = False
    forward_client_cert: str = "SANITIZE"  # SANITIZE | APPEND_FORWARD | SANITIZE_SET | FORWARD_ONLY | ALWAYS_FORWARD_ONLY
    client_cert_details: tuple[str, ...] = ()  # what x-forwarded-client-cert tells besides By and Hash, in Envoy's order
    upgrades: frozenset[str] = frozenset()
    max_request_headers_kb: int = 60
    max_headers_count: int = 100
    stream_idle_timeout: float | None = 300.0
    request_timeout: float | None = None
    idle_timeout: float | None = 3600.0
    sampling: float = 1.0  # percent
    tracing: bool = False
    access_log: bool = False
    normalize_path: bool = False
    merge_slashes: bool = False
    proxy_100_continue: bool = False  # the app says whether a client that waits for a 100 may go on


@dataclass(frozen=True, slots=True)
class TcpProxy:
    stat_prefix: str
    clusters: tuple[WeightedCluster, ...]
    total_weight: int
    idle_timeout: float | None = 3600.0
    max_duration: float | None = None
    by_source: bool = False  # hash_policy source_ip
    tunnel: str = ""  # `host:port` that the upstream is asked to CONNECT to
    access_log: bool = False
    recorded: bool = True  # False: what passes unseen (excluded destinations)


@dataclass(frozen=True, slots=True)
class FilterChainMatch:
    destination_port: int | None = None
    prefix_ranges: tuple[IPv4Network | IPv6Network, ...] = ()  # of destination addresses
    server_names: tuple[str, ...] = ()
    transport_protocol: str = ""  # "" | tls | raw_buffer
    application_protocols: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FilterChain:
    name: str
    match: FilterChainMatch
    network: HttpManager | TcpProxy
    tls: TlsContext | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    name: str
    address: str
    port: int
    chains: tuple[FilterChain, ...]
    default_chain: FilterChain | None
    bind_to_port: bool
    use_original_dst: bool
    traffic_direction: str  # INBOUND | OUTBOUND | ""
    inspect_tls: bool
    inspect_http: bool
    continue_on_inspector_timeout: bool
    inspector_timeout: float = 15.0
    tls_uninspected: tuple[tuple[int, int], ...] = ()  # destination ports [start, end) where the inspector is switched off
    http_uninspected: tuple[tuple[int, int], ...] = ()
    by_address: bool = False  # some chain names ranges of destination addresses

    def inspects(self, port: int) -> bool:
        """Whether the first bytes must be seen before a chain is chosen; where not, a server may speak first."""
        return self.inspects_tls(port) or self.inspects_http(port)

    def inspects_tls(self, port: int) -> bool:
        """Whether chains can tell TLS; where not, a ClientHello is raw bytes like all others."""
        return self.inspect_tls and not _within(port, self.tls_uninspected)

    def inspects_http(self, port: int) -> bool:
        return self.inspect_http and not _within(port, self.http_uninspected)


def _within(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= port < end for start, end in ranges)


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int
    weight: int = 1
    priority: int = 0
    healthy: bool = True
    tls_mode: str = ""  # metadata envoy.transport_socket_match.tlsMode
    labels: tuple[tuple[str, str], ...] = ()
    workload: str = ""  # from Istio's metadata "workload" when present


@dataclass(frozen=True, slots=True)
class CircuitBreakers:
    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    retry_budget_percent: float | None = None
    retry_budget_min: int = 3
    retry_budget_interval: float | None = None


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    consecutive_5xx: int = 5
    enforcing_consecutive_5xx: int = 100
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    split_local_origin: bool = False
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    always_eject_one: bool = False


@dataclass(frozen=True, slots=True)
class TransportChoice:
    """One of transport_socket_matches: the first whose `match` is contained in the endpoint's metadata."""

    name: str
    match: tuple[tuple[str, str], ...]
    tls: TlsContext | None


@dataclass(frozen=True, slots=True)
class Keepalive:
    """SO_KEEPALIVE; None leaves the system's own number."""

    probes: int | None = None
    time: int | None = None  # seconds
    interval: int | None = None  # seconds


@dataclass(frozen=True, slots=True)
class SlowStart:
    window: float  # seconds
    aggression: float = 1.0  # above 0
    min_weight: float = 0.1  # of 1


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    kind: str  # EDS | STATIC | STRICT_DNS | LOGICAL_DNS | ORIGINAL_DST
    lb_policy: str  # LEAST_REQUEST | ROUND_ROBIN | RANDOM | RING_HASH | MAGLEV | CLUSTER_PROVIDED
    endpoints: tuple[Endpoint, ...]
    connect_timeout: float = 5.0
    breakers: CircuitBreakers = CircuitBreakers()
    outlier: OutlierDetection | None = None
    transports: tuple[TransportChoice, ...] = ()
    tls: TlsContext | None = None  # transport_socket without matches
    panic_threshold: float = 50.0
    max_requests_per_connection: int | None = None
    idle_timeout: float | None = 3600.0
    max_connection_duration: float | None = None
    keepalive: Keepalive | None = None
    least_request_choices: int = 2
    slow_start: SlowStart | None = None
    ring_hash: tuple[int, int] = (1024, 8 * 1024 * 1024)
    maglev_table_size: int = 65537
    overprovisioning: int = 140  # percent; ClusterLoadAssignment.policy
    original_dst_port: int | None = None  # upstream_port_override
    dns_refresh_rate: float = 5.0
    bind_address: str | None = None
    protocol: str = "http1"  # http1 | http2 | auto | downstream
    metadata: tuple[tuple[str, str], ...] = ()  # filter_metadata.istio services' host/name/namespace, default_original_port
    proxy_protocol: int = 0  # version of the header before all else; 0: none
    auto_sni: bool = False  # the request's host is the server name, and
    auto_san_validation: bool = False  # must be one of the certificate's
    service: str = ""  # FQDN
    service_name: str = ""
    service_namespace: str = ""


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    version: str
    listeners: dict[str, Listener]
    clusters: dict[str, Cluster]
    routes: dict[str, RouteTable]
    names: dict[str, tuple[str, ...]]  # host as an app may say it (lower-case) -> IPs, from NDS
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    partitions: dict[str, str] = field(default_factory=dict)  # address that we are cut off from -> fault
    raw: dict[str, object] = field(default_factory=dict)  # as received, for config_dump; without the secrets
