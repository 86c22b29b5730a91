"""What istiod's validation says of a DestinationRule by itself."""

from devmesh.config.check_locality import check_locality, check_zone_aware
from devmesh.config.checks import Checker
from devmesh.config.istio_networking import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHashLB,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    TrafficPolicy,
    WarmupConfiguration,
)
from devmesh.config.syntax import is_label

MAX_MAGLEV_TABLE = 5_000_011
_CONFIG_MAP = "configmap://"


def check_destination_rule(check: Checker, spec: DestinationRule) -> None:
    check.domain("spec.host", spec.host)
    _check_policy(check, "spec.trafficPolicy", spec.traffic_policy)
    for index, subset in enumerate(spec.subsets):
        path = f"spec.subsets[{index}]"
        if subset.name in [other.name for other in spec.subsets[:index]]:
            check.error(f"{path}.name", f"duplicate subset names: {subset.name}")
        if not is_label(subset.name):
            check.error(f"{path}.name", f"subset name is invalid: {subset.name}" if subset.name else "subset name cannot be empty")
        check.labels(f"{path}.labels", subset.labels)
        _check_policy(check, f"{path}.trafficPolicy", subset.traffic_policy)
    check.export_to("spec.exportTo", spec.export_to)
    _check_credentials(check, spec)
    if spec.workload_selector is not None:
        check.selector("spec.workloadSelector.matchLabels", spec.workload_selector.match_labels)
    beyond = [one for one in spec.export_to if one not in (".", check.resource.meta.namespace)]
    if spec.workload_selector is not None and beyond:
        check.error("spec.exportTo", "destination rule with workload selector cannot have exportTo beyond current namespace")


def _check_credentials(check: Checker, spec: DestinationRule) -> None:
    """With a workloadSelector Istio serves the Secret to the sidecars that it selects; here these would go without TLS."""
    if spec.workload_selector is None:
        return
    policies = [("spec.trafficPolicy", spec.traffic_policy)]
    policies += [(f"spec.subsets[{index}].trafficPolicy", subset.traffic_policy) for index, subset in enumerate(spec.subsets)]
    for at, policy in policies:
        levels = policy.port_level_settings if policy is not None else ()
        for path, one in [(at, policy), *((f"{at}.portLevelSettings[{index}]", level) for index, level in enumerate(levels))]:
            if one is not None and one.tls is not None and one.tls.credential_name:
                check.error(
                    f"{path}.tls.credentialName",
                    "sidecars are not served Secrets: with workloadSelector the connection would not be encrypted",
                    "name files: caCertificates, clientCertificate, privateKey",
                )


def _check_policy(check: Checker, path: str, policy: TrafficPolicy | None) -> None:
    if policy is None:
        return
    if (
        all(getattr(policy, name) is None for name in TrafficPolicy.model_fields if name != "port_level_settings")
        and not policy.port_level_settings
    ):
        check.error(path, "traffic policy must have at least one field")
    if policy.tunnel is not None and policy.proxy_protocol is not None:
        check.error(path, "tunnel and proxyProtocol must not be set together")
    _check_common(check, path, policy)
    for index, one in enumerate(policy.port_level_settings):
        at = f"{path}.portLevelSettings[{index}]"
        if one.port is None:
            check.error(at, "portTrafficPolicy must have valid port")
        if not (one.outlier_detection or one.connection_pool or one.load_balancer or one.tls):
            check.error(at, "port traffic policy must have at least one field")
        _check_common(check, at, one)
    if policy.tunnel is not None:
        if policy.tunnel.protocol not in ("", "CONNECT", "POST"):
            check.error(f"{path}.tunnel.protocol", 'tunnel protocol must be "CONNECT" or "POST"')
        if policy.tunnel.protocol == "POST":
            check.error(f"{path}.tunnel.protocol", "tunnels by POST are not supported", "use CONNECT, the default")
        check.domain(f"{path}.tunnel.targetHost", policy.tunnel.target_host, wildcard=False, address=True)
        check.port(f"{path}.tunnel.targetPort", policy.tunnel.target_port)
    budget = policy.retry_budget
    if budget is not None and budget.percent is not None and not 0 <= budget.percent <= 100:
        check.error(f"{path}.retryBudget.percent", f"percentage {budget.percent:g} is not in range 0..100")


def _check_common(check: Checker, path: str, policy: TrafficPolicy | PortTrafficPolicy) -> None:
    _check_outlier(check, f"{path}.outlierDetection", policy.outlier_detection)
    _check_pool(check, f"{path}.connectionPool", policy.connection_pool)
    _check_balancer(check, f"{path}.loadBalancer", policy.load_balancer, policy.outlier_detection)
    _check_client_tls(check, f"{path}.tls", policy.tls)


def _check_outlier(check: Checker, path: str, outlier: OutlierDetection | None) -> None:
    if outlier is None:
        return
    if outlier.consecutive_errors:
        message = "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead"
        check.warn(f"{path}.consecutiveErrors", message)
    if not outlier.split_external_local_origin_errors and outlier.consecutive_local_origin_failures:
        message = "outlier detection consecutive local origin failures is specified, but split external local origin errors is set to false"
        check.error(f"{path}.consecutiveLocalOriginFailures", message, "add splitExternalLocalOriginErrors: true")
    for name, value in (("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)):
        if not 0 <= value <= 100:
            check.error(f"{path}.{name}", f"percentage {value} is not in range 0..100")
    for index, code in enumerate(outlier.outlier_detection_http_error_codes):
        if not 100 <= code <= 599:
            check.error(f"{path}.outlierDetectionHttpErrorCodes[{index}]", f"{code} is not in range 100..599")


def _check_pool(check: Checker, path: str, pool: ConnectionPoolSettings | None) -> None:
    if pool is None:
        return
    if pool.http is None and pool.tcp is None:
        check.error(path, "connection pool must have at least one field")
    if http := pool.http:
        numbers = {
            "http1MaxPendingRequests": http.http1_max_pending_requests,
            "http2MaxRequests": http.http2_max_requests,
            "maxRequestsPerConnection": http.max_requests_per_connection,
            "maxRetries": http.max_retries,
            "maxConcurrentStreams": http.max_concurrent_streams,
        }
        for name, value in numbers.items():
            if value < 0:
                check.error(f"{path}.http.{name}", f"{name} must be non-negative")
        if http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol:
            check.error(f"{path}.http.useClientProtocol", "use client protocol must not be true when H2UpgradePolicy is UPGRADE")
        keepalive = http.http2_keep_alive
        if keepalive is not None and (keepalive.interval is None or keepalive.timeout is None):
            check.error(f"{path}.http.http2KeepAlive", "http2 keepalive interval and timeout are required")
    if pool.tcp is not None and pool.tcp.max_connections < 0:
        check.error(f"{path}.tcp.maxConnections", "max connections must be non-negative")


def _check_balancer(check: Checker, path: str, balancer: LoadBalancerSettings | None, outlier: OutlierDetection | None) -> None:
    if balancer is None:
        return
    _check_hash(check, f"{path}.consistentHash", balancer.consistent_hash)
    locality = balancer.locality_lb_setting
    if locality is not None and balancer.zone_aware_lb_setting is not None:
        check.error(path, "only one of localityLbSetting and zoneAwareLbSetting can be set")
    check_locality(check, f"{path}.localityLbSetting", locality, outlier)
    check_zone_aware(check, f"{path}.zoneAwareLbSetting", balancer.zone_aware_lb_setting, outlier)
    _check_warmup(check, f"{path}.warmup", balancer.warmup)


def _check_hash(check: Checker, path: str, hashing: ConsistentHashLB | None) -> None:
    if hashing is None:
        return
    if cookie := hashing.http_cookie:
        if not cookie.name:
            check.error(f"{path}.httpCookie", "name required for HttpCookie")
        names = [one.name for one in cookie.attributes]
        if "" in names or len(set(names)) != len(names):
            check.error(f"{path}.httpCookie.attributes", "cookie attribute names cannot be empty or given twice")
    if hashing.minimum_ring_size:
        check.warn(
            f"{path}.minimumRingSize",
            "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead",
        )
        if hashing.ring_hash is not None or hashing.maglev is not None:
            check.error(path, "only one of MinimumRingSize or Maglev/Ringhash can be specified")
    if hashing.maglev is not None:
        size = hashing.maglev.table_size
        if not 0 < size < MAX_MAGLEV_TABLE or not _is_prime(size):
            check.error(f"{path}.maglev.tableSize", f"tableSize must be a prime number less than {MAX_MAGLEV_TABLE} for maglev")


def _is_prime(number: int) -> bool:
    return number >= 1 and (number < 4 or (number % 2 == 1 and all(number % factor for factor in range(3, int(number**0.5) + 1, 2))))


def _check_warmup(check: Checker, path: str, warmup: WarmupConfiguration | None) -> None:
    if warmup is None:
        return
    if warmup.duration is None:
        check.error(path, "duration is required")
    if not 0 <= (warmup.minimum_percent or 0) <= 100:
        check.error(f"{path}.minimumPercent", "minimumPercent value should be in range 0..100")
    if warmup.aggression is not None and warmup.aggression <= 0:
        check.error(f"{path}.aggression", "aggression should be greater than 0")


def _check_client_tls(check: Checker, path: str, tls: ClientTLSSettings | None) -> None:
    if tls is None:
        return
    _check_config_map(check, f"{path}.credentialName", tls.credential_name)
    given = bool(tls.client_certificate or tls.private_key or tls.ca_certificates or tls.ca_crl)
    if tls.insecure_skip_verify and tls.mode in ("SIMPLE", "MUTUAL"):
        named = tls.mode == "SIMPLE" and tls.credential_name
        if tls.ca_certificates or tls.subject_alt_names or named:
            check.error(path, "cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify is set true")
    if tls.mode in ("SIMPLE", "MUTUAL") and tls.credential_name:
        if given:
            check.error(path, "cannot specify client certificates or CA certificate or CA CRL If credentialName is set")
        return
    if tls.mode == "MUTUAL":
        for name, value in (("client certificate", tls.client_certificate), ("private key", tls.private_key)):
            if not value:
                check.error(path, f"{name} required for mutual tls")


def _check_config_map(check: Checker, path: str, credential: str) -> None:
    if not credential.startswith(_CONFIG_MAP):
        return
    namespace, _, name = credential.removeprefix(_CONFIG_MAP).partition("/")
    if not (namespace and name.partition("/")[0]):
        check.error(path, f'invalid configmap:// credentialName: "{credential}" is not configmap://<namespace>/<name>')
    elif namespace != check.resource.meta.namespace:
        message = f'namespace must match the configuration namespace "{check.resource.meta.namespace}"'
        check.error(path, f"invalid configmap:// credentialName: {message}")
