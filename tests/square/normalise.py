"""What is dropped from both compilers' output before they are compared, each with its reason."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]
# Filters of Istio's own Envoy build; their work is done by our telemetry and by how we choose ALPN. mongo_proxy only counts, and
# what grpc_web would translate into is HTTP/2, which nothing here reads (docs/differences.md).
ISTIO_FILTERS = ("istio.", "envoy.filters.http.grpc_stats", "envoy.filters.http.grpc_web", "envoy.filters.network.mongo_proxy")


def normalise(xds: Json) -> Json:
    out = copy.deepcopy({kind: xds[kind] for kind in ("listeners", "routes", "clusters", "endpoints")})
    _walk(out)
    for cluster in out["clusters"]:
        # Only istio.metadata_exchange is there.
        cluster.pop("filters", None)
    # istiod's order of listeners, tables and clusters follows maps and creation times; proxies do not care.
    for kind, field in (("listeners", "name"), ("routes", "name"), ("clusters", "name"), ("endpoints", "cluster_name")):
        out[kind].sort(key=lambda one, field=field: one[field])
    return out


def _without_sources(value: Json) -> None:
    """Lines of YAML, which istiod does not name."""
    found = value["metadata"]["filter_metadata"]
    found.get("devmesh", {}).pop("source", None)
    value["metadata"]["filter_metadata"] = {name: one for name, one in found.items() if one}
    if not value["metadata"]["filter_metadata"]:
        del value["metadata"]


def _walk(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _walk(one)
    if not isinstance(value, dict):
        return
    # Custom tags carry Istio's build and node metadata; the spans' tags are tested on their own.
    value.pop("custom_tags", None)
    if "filter_metadata" in value.get("metadata", ()):
        _without_sources(value)
    for key in ("http_filters", "filters"):
        if isinstance(value.get(key), list):
            value[key] = [one for one in value[key] if not one.get("name", "").startswith(ISTIO_FILTERS)]
    for one in value.values():
        _walk(one)
