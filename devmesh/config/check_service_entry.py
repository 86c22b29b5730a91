"""What istiod's validation says of a ServiceEntry by itself, and what of it means nothing here."""

from devmesh.config.checks import Checker
from devmesh.config.istio_service_entry import EntryEndpoint, EntryPort, ServiceEntry
from devmesh.config.syntax import MAX_LABEL, MAX_NAME, domain_problem, is_address, is_label, subnet_problem

PROTOCOLS = ("HTTP", "HTTPS", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "TCP", "TLS", "UDP")
SHARED = ("HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB", "HTTPS", "TLS")
_FORWARDED = ("HTTP", "HTTP2", "GRPC", "TLS")  # what a host that only the request tells can be called by
MAX_ITEMS, MAX_ENDPOINTS, MAX_PORTS, MAX_ADDRESS, MAX_TEXT = 256, 4096, 128, 64, 2048
AUTO_ALLOCATE = "networking.istio.io/enable-autoallocate-ip"
_DNS = ("DNS", "DNS_ROUND_ROBIN")


def check_service_entry(check: Checker, spec: ServiceEntry) -> None:
    if not spec.hosts:
        check.error("spec.hosts", "service entry must have at least one host")
    for name, values in (("hosts", spec.hosts), ("addresses", spec.addresses), ("ports", spec.ports)):
        check.at_most(f"spec.{name}", values, MAX_ITEMS)
    check.at_most("spec.endpoints", spec.endpoints, MAX_ENDPOINTS)
    _check_hosts(check, spec)
    _check_ports(check, spec)
    for index, address in enumerate(spec.addresses):
        _check_address(check, f"spec.addresses[{index}]", address, spec.resolution)
    _check_selector(check, spec)
    _check_resolution(check, spec)
    for index, endpoint in enumerate(spec.endpoints):
        _check_endpoint(check, f"spec.endpoints[{index}]", spec, endpoint)
    check.export_to("spec.exportTo", spec.export_to, nobody=True)


def _check_hosts(check: Checker, spec: ServiceEntry) -> None:
    for index, host in enumerate(spec.hosts):
        path = f"spec.hosts[{index}]"
        if host == "*":
            check.error(path, "invalid host *")
        elif check.domain(path, host) and "*" in host and not host.startswith("*.") and spec.resolution != "DYNAMIC_DNS":
            check.warn(path, f'partial wildcard "{host}" not allowed')


def _check_ports(check: Checker, spec: ServiceEntry) -> None:
    if not spec.ports:
        check.no_effect("spec", "an entry without ports is never called")
    has_address = bool(spec.addresses) or _is_given_one(check, spec)
    numbers: set[int] = set()
    names: set[str] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        if port.number in numbers:
            check.error(f"{path}.number", f"service entry port {port.number} already defined")
        if port.name in names:
            check.error(f"{path}.name", f'service entry port name "{port.name}" already defined')
        _check_port(check, path, port)
        if not has_address and port.protocol in ("", "TCP"):
            check.warn(
                f"{path}.protocol", "addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled"
            )
        if len(spec.hosts) > 1 and spec.resolution != "NONE" and port.protocol.upper() not in SHARED:
            check.error(f"{path}.protocol", "multiple hosts provided with non-HTTP, non-TLS ports")
        numbers.add(port.number)
        names.add(port.name)


def _is_given_one(check: Checker, spec: ServiceEntry) -> bool:
    """Whether istiod allocates an address by itself (ShouldV2AutoAllocateIPFromConfig)."""
    return spec.resolution != "NONE" and check.resource.meta.labels.get(AUTO_ALLOCATE, "").lower() != "false"


def _check_port(check: Checker, path: str, port: EntryPort) -> None:
    check.port(f"{path}.number", port.number)
    if "target_port" in port.model_fields_set:
        check.port(f"{path}.targetPort", port.target_port)
    if not is_label(port.name):
        check.error(f"{path}.name", f'invalid port name: "{port.name}"')
    if not port.protocol:
        check.no_effect(f"{path}.protocol", "a port without protocol is plain TCP: what it speaks is not sniffed")
    else:
        check.word(f"{path}.protocol", port.protocol.upper(), PROTOCOLS, f'unsupported protocol "{port.protocol}"')


def _check_address(check: Checker, path: str, address: str, resolution: str) -> None:
    check.at_most(path, address, MAX_ADDRESS)
    if problem := subnet_problem(address):
        check.error(path, problem)
    elif "/" in address and resolution not in ("NONE", "STATIC"):
        check.error(path, "CIDR addresses are allowed only for NONE/STATIC resolution types")


def _check_selector(check: Checker, spec: ServiceEntry) -> None:
    if spec.workload_selector is None:
        return
    check.selector("spec.workloadSelector.labels", spec.workload_selector.labels)
    check.at_most("spec.workloadSelector.labels", spec.workload_selector.labels, MAX_ITEMS)
    if "endpoints" in spec.model_fields_set:
        check.error("spec", "only one of WorkloadSelector or Endpoints is allowed in Service Entry")
    if spec.resolution == "NONE":
        check.warn("spec.workloadSelector", "workloadSelector should not be set when resolution mode is NONE")
        check.no_effect("spec.workloadSelector", "where NONE goes, the client says: no workload serves this entry's hosts")


def _check_resolution(check: Checker, spec: ServiceEntry) -> None:
    if spec.resolution == "DYNAMIC_DNS":
        _check_dynamic(check, spec)
    if spec.resolution == "NONE" and "endpoints" in spec.model_fields_set:
        check.error("spec.endpoints", "no endpoints should be provided for resolution type none")
    if spec.resolution == "STATIC" and not spec.endpoints and spec.workload_selector is None:
        check.no_effect("spec.resolution", "STATIC without endpoints leads nowhere: calls are answered with 503")
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        check.error("spec.endpoints", "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN")
    if spec.resolution in _DNS and not spec.endpoints:
        for index, host in enumerate(spec.hosts):
            if domain_problem(host):
                check.error(f"spec.hosts[{index}]", "hosts must be FQDN if no endpoints are provided for resolution mode DNS")


def _check_dynamic(check: Checker, spec: ServiceEntry) -> None:
    check.no_effect("spec.resolution", "names that only the request tells are not resolved by sidecars: the whole entry is left out")
    for index, host in enumerate(spec.hosts):
        if not host.startswith("*"):
            check.error(f"spec.hosts[{index}]", "host must be wildcarded for resolution mode DYNAMIC_DNS")
    for name, given in (("addresses", spec.addresses), ("endpoints", spec.endpoints)):
        if given:
            check.error(f"spec.{name}", f"{name} cannot be set for resolution type DYNAMIC_DNS")
    for index, port in enumerate(spec.ports):
        if port.protocol.upper() not in _FORWARDED:
            message = "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type DYNAMIC_DNS"
            check.error(f"spec.ports[{index}].protocol", message)


def _check_endpoint(check: Checker, path: str, spec: ServiceEntry, endpoint: EntryEndpoint) -> None:
    _check_endpoint_address(check, path, spec, endpoint)
    names = {port.name for port in spec.ports}
    for name, number in endpoint.ports.items():
        at = f"{path}.ports.{name}"
        check.port(at, number)
        if name not in names:
            check.error(at, f"endpoint port {name} is not defined by the service entry")
        if not is_label(name) or len(name) == MAX_LABEL:  # the CRD wants one character less than istiod
            check.error(at, f"invalid port name: {name}")
    check.labels(f"{path}.labels", endpoint.labels)
    check.at_most(f"{path}.ports", endpoint.ports, MAX_PORTS)
    check.at_most(f"{path}.labels", endpoint.labels, MAX_ITEMS)
    check.at_most(f"{path}.locality", endpoint.locality, MAX_TEXT)
    check.at_most(f"{path}.network", endpoint.network, MAX_TEXT)
    check.at_most(f"{path}.serviceAccount", endpoint.service_account, MAX_NAME)


def _check_endpoint_address(check: Checker, path: str, spec: ServiceEntry, endpoint: EntryEndpoint) -> None:
    address = endpoint.address
    if not address:
        check.error(path, "endpoint address is required")
    elif address.startswith("unix://"):
        check.error(f"{path}.address", "unix domain socket endpoints are not supported")
    elif spec.resolution == "STATIC" and not is_address(address):
        check.error(f"{path}.address", f"{address} is not a valid IP: STATIC resolution takes addresses, DNS takes names")
    elif spec.resolution in _DNS:
        check.domain(f"{path}.address", address, wildcard=False, address=True)
