"""Checks across resources and topology: what is referred to exists, and nothing contradicts anything else."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from devmesh.config.checks import NO_EFFECT, Checker
from devmesh.config.istio_networking import ClientTLSSettings, Destination, DestinationRule, Gateway, TCPRoute, TLSRoute, VirtualService
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.istio_service_entry import ServiceEntry
from devmesh.config.kubernetes import Secret
from devmesh.config.model import Resource, Severity
from devmesh.config.names import expand_host, host_matches, hosts_overlap, service_fqdn
from devmesh.config.schema import suggest
from devmesh.config.topology_types import Service, ServicePort, Topology, Workload

NOT_FOUND, CONFLICTING_HOSTS, PORT_REQUIRED, HOST_NOT_IN_GATEWAY, NO_WORKLOADS = "IST0101", "IST0109", "IST0112", "IST0132", "IST0127"
CONFLICTING_GATEWAYS, GATEWAY_PORT, EMPTY_SUBSET, NO_VERIFICATION = "IST0145", "IST0162", "IST0173", "IST0128"
NO_PORT_VERIFICATION = "IST0129"
SWITCHED_GATEWAYS = {"ingressgateway": "ingressGateways", "egressgateway": "egressGateways"}
WRONG_PROTOCOL, SHADOWED = "DM0008", "DM0012"
MESH = "mesh"
Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True)
class World:
    """Everything that can be referred to. Without a topology nothing is said about hosts and workloads."""

    resources: Sequence[Resource]
    topology: Topology | None

    def services(self) -> tuple[Service, ...]:
        return self.topology.services if self.topology else ()

    def service(self, host: str) -> Service | None:
        return next((one for one in self.services() if one.hostname == host), None)

    def workloads(self, selector: Mapping[str, str], namespace: str | None = None) -> list[Workload]:
        everything = self.topology.workloads if self.topology else ()
        return [one for one in everything if selector.items() <= dict(one.labels).items() and namespace in (None, one.namespace)]

    def entry_hosts(self) -> set[str]:
        """Give the hosts of ServiceEntries."""
        return {host for _, spec in self.of_kind(ServiceEntry) for host in spec.hosts}

    def of_kind(self, model: type[Spec]) -> Iterator[tuple[Resource, Spec]]:
        for resource in self.resources:
            if isinstance(resource.spec, model):
                yield resource, resource.spec


def check_references(check: Checker, world: World) -> None:
    spec, namespace = check.resource.spec, check.resource.meta.namespace
    if isinstance(spec, VirtualService):
        _check_hosts(check, world, spec)
        _check_gateways(check, world, spec)
        for path, destination in destinations(spec):
            _check_destination(check, world, path, destination, http=path.startswith("spec.http"))
    elif isinstance(spec, DestinationRule):
        _check_rule(check, world, spec)
    elif isinstance(spec, Gateway) and world.topology:
        _check_gateway(check, world, spec)
        check_gateway_credentials(check, world, spec)
    elif isinstance(spec, ServiceEntry) and world.topology:
        _check_endpoints(check, world.topology, spec)
        _check_selected(check, world, spec)
    elif isinstance(spec, PeerAuthentication) and world.topology and spec.selector:
        labels = spec.selector.match_labels
        # In the root namespace a selector reaches the whole mesh.
        if not world.workloads(labels, None if namespace == "istio-system" else namespace):
            message = f"No matching workloads for this resource with the following labels: {_text(labels)}"
            check.add("warning", NO_WORKLOADS, "spec.selector", message)


def check_conflicts(checks: Sequence[Checker]) -> None:
    """Compare resources of one kind with each other; the later one is told."""
    for index, check in enumerate(checks):
        for other in checks[:index]:
            mine, theirs = check.resource.spec, other.resource.spec
            if isinstance(mine, VirtualService) and isinstance(theirs, VirtualService):
                _check_same_hosts(check, mine, other.resource, theirs)
            elif isinstance(mine, Gateway) and isinstance(theirs, Gateway):
                _check_same_servers(check, mine, other.resource, theirs)
            elif isinstance(mine, PeerAuthentication) and isinstance(theirs, PeerAuthentication):
                _check_same_scope(check, mine, other.resource, theirs)


def destinations(spec: VirtualService) -> Iterator[tuple[str, Destination]]:
    """Give every destination with its path."""
    for index, http in enumerate(spec.http):
        path = f"spec.http[{index}]"
        found = [(f"{path}.route[{number}].destination", one.destination) for number, one in enumerate(http.route)]
        found += [(f"{path}.mirror", http.mirror)]
        found += [(f"{path}.mirrors[{number}].destination", one.destination) for number, one in enumerate(http.mirrors)]
        yield from ((at, one) for at, one in found if one is not None)
    lower: tuple[tuple[str, Sequence[TCPRoute | TLSRoute]], ...] = (("tcp", spec.tcp), ("tls", spec.tls))
    for kind, routes in lower:
        for index, route in enumerate(routes):
            for number, one in enumerate(route.route):
                if one.destination is not None:
                    yield f"spec.{kind}[{index}].route[{number}].destination", one.destination


def _text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _did_you_mean(world: World, host: str, namespace: str) -> str | None:
    """Name the service that was probably meant, as long as it must be written."""
    parts = host.split(".")
    if len(parts) in (2, 3) and world.service(service_fqdn(parts[0], parts[1])):
        return f'write it in full: "{service_fqdn(parts[0], parts[1])}"'
    elsewhere = [one for one in world.services() if one.name == parts[0] and one.namespace != namespace]
    if elsewhere:
        return f'did you mean "{elsewhere[0].hostname}"?'
    return suggest(parts[0], [one.name for one in world.services()])


def _check_hosts(check: Checker, world: World, spec: VirtualService) -> None:
    if world.topology is None or (spec.gateways and MESH not in spec.gateways):
        return
    namespace, entries = check.resource.meta.namespace, world.entry_hosts()
    for index, host in enumerate(spec.hosts):
        full = expand_host(host, namespace)
        services = [one for one in world.services() if host_matches(full, one.hostname)]
        if not services and host not in entries:
            reason = f'there is no service "{host}", so no request in the mesh meets this rule'
            hint = _did_you_mean(world, host, namespace)
            check.add("warning", NO_EFFECT, f"spec.hosts[{index}]", f"spec.hosts[{index}]: accepted, has no effect here: {reason}", hint)
        for service in services if spec.http else ():
            _check_protocols(check, spec, service)


def _check_protocols(check: Checker, spec: VirtualService, service: Service) -> None:
    """Say so when HTTP rules meet a port that carries no HTTP/1.1 here."""
    speaking = [port for port in service.ports if port.protocol in ("http", "auto")]
    if service.ports and not speaking:
        listed = ", ".join(f"{port.port} is {_protocol(port)}" for port in service.ports)
        check.add(
            "warning",
            WRONG_PROTOCOL,
            "spec.http",
            f"spec.http: HTTP rules never apply to {service.hostname}: port {listed}",
            _protocol_hint(service),
        )
        return
    for index, route in enumerate(spec.http):
        for number, match in enumerate(route.match):
            port = next((one for one in service.ports if one.port == match.port), None)
            if port is not None and port not in speaking:
                path = f"spec.http[{index}].match[{number}].port"
                message = f"{path}: HTTP rules never apply to port {port.port} of {service.hostname}: it is {_protocol(port)}"
                check.add("warning", WRONG_PROTOCOL, path, message, _protocol_hint(service))


def _protocol(port: ServicePort) -> str:
    meaning = "HTTP/2, carried as plain TCP for now" if port.protocol == "http2" else "plain TCP"
    return f"{meaning} (by its {port.protocol_source.replace('_', ' ')})"


def _protocol_hint(service: Service) -> str:
    return f"if {service.name} speaks HTTP/1.1, set x-devmesh: {{protocol: http}} on it in the compose file"


def _check_gateways(check: Checker, world: World, spec: VirtualService) -> None:
    namespace = check.resource.meta.namespace
    known = {f"{one.key.namespace}/{one.key.name}": gateway for one, gateway in world.of_kind(Gateway)}
    used = [(f"spec.gateways[{index}]", name) for index, name in enumerate(spec.gateways)]
    matches = [
        (f"spec.http[{index}].match[{number}]", match.gateways)
        for index, one in enumerate(spec.http)
        for number, match in enumerate(one.match)
    ]
    matches += [
        (f"spec.tls[{index}].match[{number}]", match.gateways)
        for index, one in enumerate(spec.tls)
        for number, match in enumerate(one.match)
    ]
    matches += [
        (f"spec.tcp[{index}].match[{number}]", match.gateways)
        for index, one in enumerate(spec.tcp)
        for number, match in enumerate(one.match)
    ]
    used += [(f"{path}.gateways[{place}]", name) for path, names in matches for place, name in enumerate(names)]
    for path, name in used:
        if name == MESH:
            continue
        gateway = known.get(_gateway_key(name, namespace))
        if gateway is None:
            message = f'Referenced gateway not found: "{name}"'
            check.add("error", NOT_FOUND, path, message, suggest(_gateway_key(name, namespace), known))
        elif path.startswith("spec.gateways") and not _host_in_gateway(gateway, spec.hosts, namespace):
            hosts = " ".join(spec.hosts)
            message = f"one or more host [{hosts}] defined in VirtualService {check.resource.meta.name} not found in Gateway {name}."
            check.add("warning", HOST_NOT_IN_GATEWAY, path, message)


def _gateway_key(name: str, namespace: str) -> str:
    if "/" in name:
        return name
    parts = name.split(".")
    return f"{parts[1]}/{parts[0]}" if len(parts) > 1 else f"{namespace}/{name}"


def _host_in_gateway(gateway: Gateway, hosts: Iterable[str], namespace: str) -> bool:
    served = [host.rpartition("/") for server in gateway.servers for host in server.hosts]
    visible = [name for scope, slash, name in served if not slash or scope in ("*", ".", namespace)]
    return any(hosts_overlap(name, host) for name in visible for host in hosts)


def _check_destination(check: Checker, world: World, path: str, destination: Destination, *, http: bool) -> None:
    namespace, host = check.resource.meta.namespace, destination.host
    full = expand_host(host, namespace)
    if destination.subset:
        _check_subset(check, world, path, destination)
    if world.topology is None:
        return
    service = world.service(full)
    if service is None:
        if host not in world.entry_hosts() and "*" not in host:
            check.add("error", NOT_FOUND, f"{path}.host", f'Referenced host not found: "{host}"', _did_you_mean(world, host, namespace))
        return
    numbers = {port.port: port for port in service.ports}
    if destination.port is None:
        if len(numbers) > 1:
            message = (
                f'This VirtualService routes to a service "{host}" that exposes multiple ports {sorted(numbers)}. '
                "Specifying a port in the destination is required to disambiguate."
            )
            check.add("warning", PORT_REQUIRED, f"{path}.host", message, "add port: {number: ...}")
        return
    port = numbers.get(destination.port.number)
    if port is None:
        hint = f"{host} has {'port' if len(numbers) == 1 else 'ports'} {', '.join(map(str, numbers))}"
        check.add("error", NOT_FOUND, f"{path}.port", f'Referenced host:port not found: "{host}:{destination.port.number}"', hint)
    elif http and port.protocol not in ("http", "auto") and not _is_gateway(world, service):
        message = f"{path}.port: an HTTP rule sends to port {port.port} of {service.hostname}, which is {_protocol(port)}"
        check.add("warning", WRONG_PROTOCOL, f"{path}.port", message, _protocol_hint(service))


def _is_gateway(world: World, service: Service) -> bool:
    """A gateway's port is called http2 and takes HTTP/1.1, too."""
    return any(one.gateway for one in world.workloads(service.selector, service.namespace))


def _check_subset(check: Checker, world: World, path: str, destination: Destination) -> None:
    full = expand_host(destination.host, check.resource.meta.namespace)
    names: list[str] = []
    for resource, rule in world.of_kind(DestinationRule):
        if host_matches(expand_host(rule.host, resource.meta.namespace), full):
            names += [subset.name for subset in rule.subsets]
    if destination.subset not in names:
        message = f'Referenced host+subset in destinationrule not found: "{destination.host}+{destination.subset}"'
        hint = suggest(destination.subset, names) or f"apply a DestinationRule for {destination.host} that defines it"
        check.add("error", NOT_FOUND, f"{path}.subset", message, hint)


def _check_verification(check: Checker, host: str, tls: ClientTLSSettings | None, path: str, port: int | None = None) -> None:
    if tls is None or tls.mode not in ("SIMPLE", "MUTUAL") or tls.ca_certificates or tls.credential_name:
        return
    message = (
        f"DestinationRule {check.resource.meta.name} in namespace {check.resource.meta.namespace} has TLS mode set to {tls.mode} "
        f"but no caCertificates are set to validate server identity for host: {host}"
    )
    if port is None:
        check.add("warning", NO_VERIFICATION, f"{path}.tls", message)
    else:
        check.add("warning", NO_PORT_VERIFICATION, f"{path}.tls", f"{message} at port number:{port}")


def _check_rule(check: Checker, world: World, rule: DestinationRule) -> None:
    namespace = check.resource.meta.namespace
    full = expand_host(rule.host, namespace)
    policy = rule.traffic_policy
    if policy is not None:
        _check_verification(check, rule.host, policy.tls, "spec.trafficPolicy")
        for index, one in enumerate(policy.port_level_settings):
            port = one.port.number if one.port is not None else 0
            _check_verification(check, rule.host, one.tls, f"spec.trafficPolicy.portLevelSettings[{index}]", port)
    if world.topology is None:
        return
    services = [one for one in world.services() if host_matches(full, one.hostname)]
    if not services and rule.host not in world.entry_hosts():
        message = f'spec.host: accepted, has no effect here: there is no service "{rule.host}"'
        check.add("warning", NO_EFFECT, "spec.host", message, _did_you_mean(world, rule.host, namespace))
    for index, subset in enumerate(rule.subsets if services else ()):
        if not any(world.workloads({**one.selector, **subset.labels}, one.namespace) for one in services):
            message = (
                f"The Subset {subset.name} defined in the DestinationRule does not select any pods. "
                "Which may lead to 503 UH (NoHealthyUpstream)."
            )
            check.add("warning", EMPTY_SUBSET, f"spec.subsets[{index}]", message)


def _check_gateway(check: Checker, world: World, gateway: Gateway) -> None:
    workloads = [one for one in world.workloads(gateway.selector) if one.gateway]
    if not workloads:
        # A profile without gateways is meant; the resource then waits for one, as in Istio.
        component = SWITCHED_GATEWAYS.get(gateway.selector.get("istio", ""))
        hint = (
            f"devmesh up --set components.{component}[0].enabled=true" if component else "gateways here are labelled istio: ingressgateway"
        )
        severity: Severity = "warning" if component else "error"
        check.add(severity, NOT_FOUND, "spec.selector", f'Referenced selector not found: "{_text(gateway.selector)}"', hint)
        return
    serving = [one for one in world.services() if any(one.selector.items() <= dict(workload.labels).items() for workload in workloads)]
    # A server's port is what the proxy listens on; a service port stands for its target (istiod resolves it).
    numbers = {number for one in serving for port in one.ports for number in (port.port, port.target_port)}
    for index, server in enumerate(gateway.servers):
        if server.port is not None and server.port.number not in numbers:
            message = (
                f"The gateway is listening on a target port (port {server.port.number}) that is not defined in the Service associated "
                f"with its workload instances (Pod selector {_text(gateway.selector)})."
            )
            check.add(
                "warning", GATEWAY_PORT, f"spec.servers[{index}].port.number", message, f"use one of {', '.join(map(str, sorted(numbers)))}"
            )


def _check_endpoints(check: Checker, topology: Topology, entry: ServiceEntry) -> None:
    """Where Istio would make a workload one of the entry's own, with inbound listeners and all."""
    owners = {one.ip: one.name for one in topology.workloads}
    for index, endpoint in enumerate(entry.endpoints):
        if endpoint.address in owners:
            path = f"spec.endpoints[{index}].address"
            check.no_effect(path, f"{owners[endpoint.address]} does not become a workload of this service: workloadSelector makes it one")


def _check_selected(check: Checker, world: World, entry: ServiceEntry) -> None:
    """Workloads are reached at the ports that their own services have."""
    if entry.workload_selector is None or entry.resolution == "NONE":
        return
    labels = entry.workload_selector.labels
    selected = world.workloads(labels, check.resource.meta.namespace)
    if not selected:
        message = f"No matching workloads for this resource with the following labels: {_text(labels)}"
        check.add("warning", NO_WORKLOADS, "spec.workloadSelector", message)
    for index, port in enumerate(entry.ports):
        number = port.target_port or port.number
        without = [one.name for one in selected if number not in one.ports]
        if without:
            check.no_effect(f"spec.ports[{index}]", f"{', '.join(without)} has no port {number}: name one that it has as targetPort")


def check_gateway_credentials(check: Checker, world: World, gateway: Gateway) -> None:
    """A credentialName is a Secret of the gateway's own namespace that holds what the server's mode needs."""
    namespaces = {one.namespace for one in world.workloads(gateway.selector) if one.gateway}
    for index, server in enumerate(gateway.servers):
        tls = server.tls
        if tls is None or tls.mode not in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
            continue
        path = f"spec.servers[{index}].tls"
        named = [(f"{path}.credentialName", tls.credential_name)] if tls.credential_name else []
        named += [(f"{path}.credentialNames[{place}]", name) for place, name in enumerate(tls.credential_names)]
        for at, name in named:
            _check_credential(check, world, at, name, namespaces, "pair")
        if named and tls.mode != "SIMPLE":
            given = tls.ca_cert_credential_name
            at = f"{path}.caCertCredentialName" if given else named[0][0]
            _check_credential(check, world, at, given or f"{named[0][1]}-cacert", namespaces, "roots")


def _check_credential(check: Checker, world: World, path: str, name: str, namespaces: set[str], part: str) -> None:
    secrets = {(one.key.namespace, one.key.name): spec for one, spec in world.of_kind(Secret)}
    for namespace in sorted(namespaces):
        own, _, bare = name.rpartition("/")
        found = secrets.get((namespace, bare)) or (secrets.get((namespace, bare.removesuffix("-cacert"))) if part == "roots" else None)
        if found is None or own not in ("", namespace):
            elsewhere = next((one for one, other in secrets if other == bare and one != namespace), None)
            hint = f"a gateway reads Secrets of its own namespace: metadata: {{namespace: {namespace}}}" if elsewhere else None
            message = f'Referenced credentialName not found: "{name}" in namespace {namespace}'
            check.add(
                "error", NOT_FOUND, path, message, hint or f"apply a Secret {bare.removesuffix('-cacert')} to namespace {namespace} too"
            )
        elif not found.is_sealed() and (found.pair() if part == "pair" else found.roots()) is None:
            wanted = "tls.crt and tls.key" if part == "pair" else "ca.crt"
            check.add("error", NOT_FOUND, path, f"{path}: Secret {namespace}/{bare.removesuffix('-cacert')} has no {wanted}")


def _check_same_hosts(check: Checker, mine: VirtualService, other: Resource, theirs: VirtualService) -> None:
    if any(spec.gateways and MESH not in spec.gateways for spec in (mine, theirs)):
        return
    taken = {expand_host(host, other.meta.namespace) for host in theirs.hosts}
    for index, host in enumerate(mine.hosts):
        if expand_host(host, check.resource.meta.namespace) in taken:
            names = f"{other.meta.namespace}/{other.meta.name},{check.resource.meta.namespace}/{check.resource.meta.name}"
            message = (
                f"The VirtualServices {names} associated with mesh gateway define the same host {host} "
                "which can lead to undefined behavior. "
                "This can be fixed by merging the conflicting VirtualServices into a single resource. "
                f"The other is at {other.position('metadata.name')}"
            )
            check.add("error", CONFLICTING_HOSTS, f"spec.hosts[{index}]", message)


def _check_same_servers(check: Checker, mine: Gateway, other: Resource, theirs: Gateway) -> None:
    if mine.selector != theirs.selector:
        return
    for index, server in enumerate(mine.servers):
        for rival in theirs.servers:
            same_port = server.port is not None and rival.port is not None and server.port.number == rival.port.number
            shared = sorted(set(server.hosts) & set(rival.hosts))
            if same_port and shared and server.port is not None:
                message = (
                    f"Conflict with gateways {other.meta.namespace}/{other.meta.name} (workload selector {_text(mine.selector)}, "
                    f"port {server.port.number}, hosts {shared})."
                )
                check.add("warning", CONFLICTING_GATEWAYS, f"spec.servers[{index}]", message)


def _check_same_scope(check: Checker, mine: PeerAuthentication, other: Resource, theirs: PeerAuthentication) -> None:
    labels, their_labels = (one.selector.match_labels if one.selector else {} for one in (mine, theirs))
    if check.resource.meta.namespace == other.meta.namespace and labels == their_labels:
        message = f"{other.key} has the same scope: Istio takes the oldest, so this one does nothing"
        check.add("warning", SHADOWED, "metadata.name", message, "merge the two")
