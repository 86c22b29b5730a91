"""What istiod's validation says of a ServiceEntry by itself, and what of it means nothing here."""

import ipaddress

from devmesh.config.checks import Checker, is_address, is_label
from devmesh.config.istio_service_entry import ServiceEntry

PROTOCOLS = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "TCP", "TLS")
SHARED = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS")
_DNS = ("DNS", "DNS_ROUND_ROBIN")


def check_service_entry(check: Checker, spec: ServiceEntry) -> None:
    if not spec.hosts:
        check.error("spec.hosts", "service entry must have at least one host")
    for index, host in enumerate(spec.hosts):
        if host == "*":
            check.error(f"spec.hosts[{index}]", "invalid host *")
        else:
            check.domain(f"spec.hosts[{index}]", host)
    _check_ports(check, spec)
    for index, address in enumerate(spec.addresses):
        _check_address(check, f"spec.addresses[{index}]", address)
    _check_resolution(check, spec)
    check.export_to("spec.exportTo", spec.export_to)


def _check_ports(check: Checker, spec: ServiceEntry) -> None:
    if not spec.ports:
        check.error("spec.ports", "service entry must have at least one port")
    numbers: set[int] = set()
    names: set[str] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        check.port(f"{path}.number", port.number)
        if port.number in numbers:
            check.error(f"{path}.number", f"service entry port {port.number} already defined")
        if not port.name or not is_label(port.name):
            check.error(f"{path}.name", f'invalid port name: "{port.name}"')
        elif port.name in names:
            check.error(f"{path}.name", f'service entry port name "{port.name}" already defined')
        if port.protocol.upper() not in PROTOCOLS:
            if port.protocol:
                check.word(f"{path}.protocol", port.protocol.upper(), PROTOCOLS, f'unsupported protocol "{port.protocol}"')
            else:
                check.no_effect(f"{path}.protocol", "a port without protocol is plain TCP: what it speaks is not sniffed")
        if len(spec.hosts) > 1 and not spec.addresses and port.protocol.upper() not in SHARED:
            check.error(f"{path}.protocol", "multiple hosts provided with non-HTTP, non-TLS ports")
        numbers.add(port.number)
        names.add(port.name)


def _check_address(check: Checker, path: str, address: str) -> None:
    if is_address(address):
        return
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        check.error(path, f"{address} is neither an IP address nor a CIDR range")
    else:
        check.no_effect(path, "ranges of addresses are not matched: name single addresses")


def _check_resolution(check: Checker, spec: ServiceEntry) -> None:
    if spec.resolution == "DYNAMIC_DNS":
        check.no_effect("spec.resolution", "names that only the request tells are not resolved by sidecars: the whole entry is left out")
    if spec.workload_selector is not None and spec.endpoints:
        check.error("spec", "only one of WorkloadSelector or Endpoints is allowed in Service Entry")
    if spec.resolution == "NONE" and spec.endpoints:
        check.error("spec.endpoints", "no endpoints should be provided for resolution type none")
    if spec.resolution == "STATIC" and not spec.endpoints and spec.workload_selector is None:
        check.error("spec.endpoints", "endpoints must be provided if service entry resolution mode is static")
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        check.error("spec.endpoints", "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN")
    if spec.resolution in _DNS and not spec.endpoints:
        for index, host in enumerate(spec.hosts):
            if host.startswith("*"):
                check.error(f"spec.hosts[{index}]", "hosts must be FQDN if no endpoints are provided for resolution mode DNS")
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        path = f"spec.endpoints[{index}]"
        _check_endpoint(check, path, spec, endpoint.address)
        for name, number in endpoint.ports.items():
            check.port(f"{path}.ports.{name}", number)
            if name not in names:
                check.error(f"{path}.ports.{name}", f"endpoint port {name} is not defined by the service entry")
        check.labels(f"{path}.labels", endpoint.labels)


def _check_endpoint(check: Checker, path: str, spec: ServiceEntry, address: str) -> None:
    if not address:
        check.error(path, "endpoint address is required")
    elif address.startswith("unix://"):
        check.error(f"{path}.address", "unix domain socket endpoints are not supported")
    elif spec.resolution == "STATIC" and not is_address(address):
        check.error(f"{path}.address", f"{address} is not a valid IP: STATIC resolution takes addresses, DNS takes names")
    elif spec.resolution in _DNS and not is_address(address):
        check.domain(f"{path}.address", address)
