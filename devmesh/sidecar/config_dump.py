"""The configuration in force in Envoy's ConfigDump format (envoy.admin.v3), readable by `istioctl proxy-config --file`. No key ever."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from devmesh.sidecar.running import Running, rfc3339
from devmesh.xds.rest import TYPE_URLS

Json = dict[str, Any]
ADMIN = "type.googleapis.com/envoy.admin.v3."
SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type's name
# What Envoy prints for a key.
OWN = ("default", "ROOTCA")
REDACTED = base64.b64encode(b"[redacted]").decode()


def config_dump(running: Running, *, include_eds: bool = False) -> Json:
    """Give the whole dump; endpoints only when asked for, as Envoy does."""
    configs = [_bootstrap(running), _clusters(running), _listeners(running), _routes(running), _secrets(running)]
    if include_eds:
        configs.insert(2, _endpoints(running))
    return {"configs": configs}


def _typed(running: Running, kind: str) -> list[Json]:
    """Give the resources as received, each an Any with its type first."""
    resources = running.proxy.config.raw.get(kind)
    items: Iterable[Any] = resources if isinstance(resources, list | tuple) else ()
    return [{"@type": TYPE_URLS[kind], **{key: value for key, value in item.items() if key != "@type"}} for item in items]


def _bootstrap(running: Running) -> Json:
    node = running.bootstrap.node.to_json()
    started = rfc3339(running.started_ns)
    return {"@type": ADMIN + "BootstrapConfigDump", "bootstrap": {"node": node}, "last_updated": started}


def _version(running: Running, kind: str) -> str:
    """As Envoy tells it, each type's own; a snapshot from a file has one for all."""
    config = running.proxy.config
    versions = config.raw.get("versions")
    return str(versions.get(kind, config.version)) if isinstance(versions, Mapping) else config.version


def _stamp(running: Running, kind: str, field: str, resource: Mapping[str, Any]) -> Json:
    return {"version_info": _version(running, kind), field: resource, "last_updated": running.updated()}


def _clusters(running: Running) -> Json:
    clusters = [_stamp(running, "clusters", "cluster", cluster) for cluster in _typed(running, "clusters")]
    return {"@type": ADMIN + "ClustersConfigDump", "version_info": _version(running, "clusters"), "dynamic_active_clusters": clusters}


def _listeners(running: Running) -> Json:
    listeners = [
        {"name": listener.get("name", ""), "active_state": _stamp(running, "listeners", "listener", listener)}
        for listener in _typed(running, "listeners")
    ]
    return {"@type": ADMIN + "ListenersConfigDump", "version_info": _version(running, "listeners"), "dynamic_listeners": listeners}


def _routes(running: Running) -> Json:
    routes = [_stamp(running, "routes", "route_config", route) for route in _typed(running, "routes")]
    return {"@type": ADMIN + "RoutesConfigDump", "dynamic_route_configs": routes}


def _endpoints(running: Running) -> Json:
    endpoints = [_stamp(running, "endpoints", "endpoint_config", assignment) for assignment in _typed(running, "endpoints")]
    return {"@type": ADMIN + "EndpointsConfigDump", "dynamic_endpoint_configs": endpoints}


def _secrets(running: Running) -> Json:
    credentials = running.certificates()
    secrets: list[Json] = []
    if credentials is not None:
        chain = base64.b64encode(credentials.certificate_chain.encode()).decode()
        trust = base64.b64encode(credentials.trust_bundle.encode()).decode()
        certificate = {"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": REDACTED}}
        secrets = [
            _secret(running, "default", {"tls_certificate": certificate}),
            _secret(running, "ROOTCA", {"validation_context": {"trusted_ca": {"inline_bytes": trust}}}),
        ]
    secrets += [_secret(running, name, _served(secret)) for name, secret in running.proxy.config.secrets.items() if name not in OWN]
    return {"@type": ADMIN + "SecretsConfigDump", "dynamic_active_secrets": secrets}


def _served(secret: Mapping[str, str]) -> Json:
    """One that the control plane sent (credentialName)."""
    if "trust_bundle" in secret:
        return {"validation_context": {"trusted_ca": {"inline_bytes": base64.b64encode(secret["trust_bundle"].encode()).decode()}}}
    chain = base64.b64encode(secret.get("certificate_chain", "").encode()).decode()
    return {"tls_certificate": {"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": REDACTED}}}


def _secret(running: Running, name: str, content: Json) -> Json:
    secret = {"@type": SECRET_TYPE, "name": name, **content}
    return {"name": name, **_stamp(running, "secrets", "secret", secret)}
