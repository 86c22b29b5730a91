"""Where an attempt goes and how: an endpoint and the TLS that its cluster asks for there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from devmesh.sidecar.balancing import key_of
from devmesh.sidecar.config import Cluster, Endpoint, TlsContext

HTTP_ALPN = (b"istio-http/1.1", b"istio", b"http/1.1")  # what Istio's istio.alpn filter offers for an HTTP/1.1 request


@dataclass(slots=True)
class Target:
    """Where one attempt goes and how."""

    cluster: Cluster
    endpoint: Endpoint
    tls: TlsContext | None
    alpn: tuple[bytes, ...] = ()
    source: tuple[str, str] | None = None  # the downstream connection's remote and local address, where the PROXY protocol tells them

    @property
    def pool_key(self) -> tuple[str, TlsContext | None, tuple[bytes, ...], tuple[str, str] | None]:
        return (key_of(self.endpoint), self.tls, self.alpn, self.source)


def http_target(cluster: Cluster, endpoint: Endpoint, host: str = "", source: tuple[str, str] | None = None) -> Target:
    """An HTTP/1.1 request's way to an endpoint; what is no mesh TLS is offered its own ALPN without h2."""
    tls = transport_for(cluster, endpoint)
    if tls is None:
        return Target(cluster, endpoint, None, (), source)
    if cluster.auto_sni and not is_ip(host.strip("[]")):  # RFC 6066 section 3: an address is no server name
        tls = replace(tls, sni=host)
    if cluster.auto_san_validation:
        tls = replace(tls, sans=(("exact", host.strip("[]")),))
    mesh = any(name.startswith(b"istio") for name in tls.alpn)
    return Target(cluster, endpoint, tls, HTTP_ALPN if mesh else tuple(name for name in tls.alpn if name != b"h2"), source)


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def transport_for(cluster: Cluster, endpoint: Endpoint) -> TlsContext | None:
    """The first transport_socket_match contained in the endpoint's metadata, else the cluster's own."""
    labels = dict(endpoint.labels)
    for choice in cluster.transports:
        if all(labels.get(key) == value for key, value in choice.match):
            return choice.tls
    return cluster.tls
