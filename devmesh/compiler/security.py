"""PeerAuthentication: which mTLS mode holds at a workload's port (istio.io PeerAuthentication: workload over namespace over mesh, oldest first)."""

from __future__ import annotations

from collections.abc import Mapping

from devmesh.compiler.shared import TYPE, Json, secret
from devmesh.compiler.world import ROOT_NAMESPACE, World, matches, per_world
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.topology_types import Workload

TLS_MODE_LABEL = (
    "security.istio.io/tlsMode"  # Istio's injection sets it to "istio" on sidecars, not on gateways: these have servers of their own
)
CIPHERS = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
]


@per_world
def mtls_mode(world: World, workload: Workload, port: int) -> str:
    """STRICT, PERMISSIVE or DISABLE."""
    return mode_at(world, workload.namespace, workload.labels, port)


def mode_at(world: World, namespace: str, labels: Mapping[str, str], port: int) -> str:
    """As `mtls_mode`, of whatever has these labels."""
    mode = namespace_mode(world, namespace)
    own = _own(world, namespace, labels)
    if own is None:
        return mode
    mode = _mode(own.mtls.mode if own.mtls is not None else "UNSET", mode)
    per_port = own.port_level_mtls.get(port)
    return _mode(per_port.mode, mode) if per_port is not None else mode


def ports_of_their_own(world: World, workload: Workload) -> list[int]:
    """The ports that portLevelMtls names."""
    own = _own(world, workload.namespace, workload.labels)
    return sorted(own.port_level_mtls) if own is not None else []


@per_world
def namespace_mode(world: World, namespace: str) -> str:
    """What holds for workloads of a namespace that no selector names."""
    mode = "PERMISSIVE"
    for policy in _mesh_wide(world, ROOT_NAMESPACE) + ([] if namespace == ROOT_NAMESPACE else _mesh_wide(world, namespace)):
        mode = _mode(policy.mtls.mode if policy.mtls is not None else "UNSET", mode)
    return mode


def _mode(mode: str, inherited: str) -> str:
    return inherited if mode in ("UNSET", "") else mode


def _mesh_wide(world: World, namespace: str) -> list[PeerAuthentication]:
    """The oldest policy without selector in a namespace, the only one that counts."""
    found = [spec for resource, spec in world.peer_authentications() if resource.key.namespace == namespace and not _selector(spec)]
    return found[:1]


def _own(world: World, namespace: str, labels: Mapping[str, str]) -> PeerAuthentication | None:
    for resource, spec in world.peer_authentications():
        if resource.key.namespace == namespace and _selector(spec) and matches(_selector(spec), labels):
            return spec
    return None


def _selector(spec: PeerAuthentication) -> dict[str, str]:
    return dict(spec.selector.match_labels) if spec.selector is not None else {}


def has_sidecar(workload: Workload) -> bool:
    """Whether it can speak mTLS at all."""
    return workload.labels.get(TLS_MODE_LABEL, "istio") == "istio"


def takes_mtls(world: World, workload: Workload, port: int, mode: str | None) -> bool:
    """Whether a client should speak mTLS to this port, the endpoint's tlsMode; `mode` is what its DestinationRule says, if anything."""
    return has_sidecar(workload) and (mode == "ISTIO_MUTUAL" if mode is not None else mtls_mode(world, workload, port) != "DISABLE")


def downstream_tls(alpn: list[str]) -> Json:
    """The mTLS transport socket of an inbound chain."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                    "cipher_suites": CIPHERS,
                },
                "tls_certificate_sds_secret_configs": [secret("default")],
                "combined_validation_context": {
                    "default_validation_context": {"match_subject_alt_names": [{"prefix": "spiffe://cluster.local/"}]},
                    "validation_context_sds_secret_config": secret("ROOTCA"),
                },
                "alpn_protocols": alpn,
            },
            "require_client_certificate": True,
        },
    }
