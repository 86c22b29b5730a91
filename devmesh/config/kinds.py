"""Every kind devmesh knows, and how far: the one table that loader, analysis and `apply` ask."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from devmesh.config import istio_telemetry
from devmesh.config.devmesh_v1 import Fault
from devmesh.config.istio_networking import DestinationRule, Gateway, VirtualService
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.istio_service_entry import ServiceEntry
from devmesh.config.kubernetes import Secret

Support = Literal["full", "not_yet", "unsafe_to_ignore"]
NETWORKING, SECURITY, TELEMETRY, EXTENSIONS = "networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"
GATEWAY_API, SMI_SPLIT, SMI_SPECS, SMI_ACCESS, DEVMESH = (
    "gateway.networking.k8s.io",
    "split.smi-spec.io",
    "specs.smi-spec.io",
    "access.smi-spec.io",
    "devmesh.dev",
)


@dataclass(frozen=True, slots=True)
class KnownKind:
    """`unsafe_to_ignore`: a mesh without it allows what its author forbade, so `apply` refuses it."""

    group: str
    kind: str
    versions: tuple[str, ...]
    support: Support
    model: type[BaseModel] | None = None
    flat: bool = False  # its fields stand beside metadata, not in a spec


_THREE = ("v1", "v1beta1", "v1alpha3")
KINDS: tuple[KnownKind, ...] = (
    KnownKind(NETWORKING, "VirtualService", _THREE, "full", VirtualService),
    KnownKind(NETWORKING, "DestinationRule", _THREE, "full", DestinationRule),
    KnownKind(NETWORKING, "Gateway", _THREE, "full", Gateway),
    KnownKind(NETWORKING, "ServiceEntry", _THREE, "full", ServiceEntry),
    KnownKind(NETWORKING, "Sidecar", _THREE, "not_yet"),
    KnownKind(NETWORKING, "WorkloadEntry", _THREE, "not_yet"),
    KnownKind(NETWORKING, "WorkloadGroup", _THREE, "not_yet"),
    KnownKind(NETWORKING, "EnvoyFilter", ("v1alpha3",), "not_yet"),
    KnownKind(NETWORKING, "ProxyConfig", ("v1beta1",), "not_yet"),
    KnownKind(SECURITY, "PeerAuthentication", ("v1", "v1beta1"), "full", PeerAuthentication),
    KnownKind(SECURITY, "AuthorizationPolicy", ("v1", "v1beta1"), "unsafe_to_ignore"),
    KnownKind(SECURITY, "RequestAuthentication", ("v1", "v1beta1"), "unsafe_to_ignore"),
    *(KnownKind(TELEMETRY, kind, versions, "not_yet") for kind, versions in istio_telemetry.KINDS),
    KnownKind(EXTENSIONS, "WasmPlugin", ("v1alpha1",), "not_yet"),
    KnownKind(EXTENSIONS, "TrafficExtension", ("v1alpha1",), "not_yet"),
    KnownKind(GATEWAY_API, "GatewayClass", ("v1", "v1beta1"), "not_yet"),
    KnownKind(GATEWAY_API, "Gateway", ("v1", "v1beta1"), "not_yet"),
    KnownKind(GATEWAY_API, "HTTPRoute", ("v1", "v1beta1"), "not_yet"),
    KnownKind(GATEWAY_API, "GRPCRoute", ("v1", "v1alpha2"), "not_yet"),
    KnownKind(GATEWAY_API, "TCPRoute", ("v1alpha2",), "not_yet"),
    KnownKind(GATEWAY_API, "TLSRoute", ("v1", "v1alpha3", "v1alpha2"), "not_yet"),
    KnownKind(GATEWAY_API, "ReferenceGrant", ("v1", "v1beta1"), "not_yet"),
    KnownKind(GATEWAY_API, "BackendTLSPolicy", ("v1", "v1alpha3"), "not_yet"),
    KnownKind(SMI_SPLIT, "TrafficSplit", ("v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"), "not_yet"),
    KnownKind(SMI_SPECS, "HTTPRouteGroup", ("v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"), "not_yet"),
    KnownKind(SMI_SPECS, "TCPRoute", ("v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"), "not_yet"),
    KnownKind(SMI_ACCESS, "TrafficTarget", ("v1alpha3", "v1alpha2", "v1alpha1"), "unsafe_to_ignore"),
    KnownKind("", "Secret", ("v1",), "full", Secret, flat=True),
    KnownKind(DEVMESH, "Fault", ("v1",), "full", Fault),
    KnownKind(DEVMESH, "Scenario", ("v1",), "not_yet"),
)
_BY_NAME = {(one.group, one.kind): one for one in KINDS}


def find_kind(group: str, kind: str) -> KnownKind | None:
    return _BY_NAME.get((group, kind))


def support_of(group: str, kind: str) -> Support | None:
    known = find_kind(group, kind)
    return known.support if known else None
