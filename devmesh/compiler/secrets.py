"""The Secrets that a gateway's listeners and clusters name (`credentialName`), as SDS resources: to that gateway and to nobody else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from devmesh.compiler.downstream_tls import CA_SUFFIX, CREDENTIAL
from devmesh.compiler.shared import Json
from devmesh.compiler.world import World
from devmesh.config.topology_types import Workload


def gateway_secrets(world: World, proxy: Workload, *users: Sequence[Json]) -> list[Json]:
    """Those that exist and hold what is asked for; without one its chain refuses connections, as an Envoy without an answer from SDS."""
    used = sorted({one for user in users for one in _used(user)})
    return [found for name, as_roots in used if (found := _secret(world, proxy, name, as_roots=as_roots)) is not None]


def _used(value: Any, key: str = "") -> Iterator[tuple[str, bool]]:
    """Every SDS name of a Secret, and whether its roots are meant."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and name.startswith(CREDENTIAL):
            yield name, key == "validation_context_sds_secret_config"
        for inner, one in value.items():
            yield from _used(one, inner)
    for one in value if isinstance(value, list | tuple) else ():
        yield from _used(one, key)


def _secret(world: World, proxy: Workload, resource: str, *, as_roots: bool) -> Json | None:
    """istiod's rule: only Secrets of the gateway's own namespace; `NAME-cacert` is a Secret of that name, else the roots in NAME."""
    namespace, slash, name = resource.removeprefix(CREDENTIAL).rpartition("/")
    if slash and namespace != proxy.namespace:
        return None
    return _roots(world, proxy.namespace, name, resource) if as_roots else _pair(world, proxy.namespace, name, resource)


def _roots(world: World, namespace: str, name: str, resource: str) -> Json | None:
    found = world.secret(namespace, name) or world.secret(namespace, name.removesuffix(CA_SUFFIX))
    roots = found.roots() if found is not None else None
    return {"name": resource, "validation_context": {"trusted_ca": _inline(roots)}} if roots is not None else None


def _pair(world: World, namespace: str, name: str, resource: str) -> Json | None:
    found = world.secret(namespace, name)
    pair = found.pair() if found is not None else None
    if pair is None:
        return None
    certificate, key = pair
    return {"name": resource, "tls_certificate": {"certificate_chain": _inline(certificate), "private_key": _inline(key)}}


def _inline(content: bytes) -> Json:
    return {"inline_bytes": base64.b64encode(content).decode()}
