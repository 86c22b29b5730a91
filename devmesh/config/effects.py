"""Fields that are valid and do nothing here, each with its reason: nothing is dropped in silence."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from devmesh.config.devmesh_v1 import Fault
from devmesh.config.istio_networking import (
    ClientTLSSettings,
    HTTPMatchRequest,
    HTTPRetry,
    HTTPSettings,
    L4MatchAttributes,
    LoadBalancerSettings,
    OutlierDetection,
    Server,
    TLSCertificate,
    TLSMatchAttributes,
)
from devmesh.config.istio_service_entry import EntryEndpoint
from devmesh.config.kubernetes import Secret

_HTTP2 = "sidecars here carry HTTP/2 as plain TCP for now"
_ONE_MACHINE = "all workloads of this mesh are in one place"
WITHOUT_EFFECT: Mapping[tuple[type[BaseModel], str], str] = {
    (HTTPSettings, "h2_upgrade_policy"): _HTTP2,
    (HTTPSettings, "use_client_protocol"): _HTTP2,
    (HTTPSettings, "max_concurrent_streams"): _HTTP2,
    (HTTPSettings, "http2_keep_alive"): _HTTP2,
    (LoadBalancerSettings, "locality_lb_setting"): _ONE_MACHINE,
    (LoadBalancerSettings, "zone_aware_lb_setting"): _ONE_MACHINE,
    (HTTPRetry, "retry_remote_localities"): _ONE_MACHINE,
    (ClientTLSSettings, "ca_crl"): "revocation lists are not supported yet",
    (HTTPMatchRequest, "stat_prefix"): "there are no per-route statistics",
    (L4MatchAttributes, "destination_subnets"): "a service here has one address",
    (TLSMatchAttributes, "destination_subnets"): "a service here has one address",
    (L4MatchAttributes, "source_subnet"): "all workloads of this mesh are in one place",
    (TLSCertificate, "ca_certificates"): "the server's own caCertificates hold for all its certificates",
    (EntryEndpoint, "network"): _ONE_MACHINE,
    (EntryEndpoint, "locality"): _ONE_MACHINE,
    (Secret, "immutable"): "it can be applied again with other values",
    (Server, "bind"): "a gateway listens on its workload's address",
    (Fault, "kill"): "an app is killed once, by devmesh fault inject --kill",
    (Fault, "hits"): "it says what devmesh fault inject --kill has done",
    (OutlierDetection, "consecutive_errors"): "istiod makes nothing of it any more: name consecutive5xxErrors or consecutiveGatewayErrors",
    (OutlierDetection, "outlier_detection_http_error_codes"): "istiod makes nothing of it either, for now: what counts is 5xx",
}


def without_effect(model: BaseModel, path: str = "spec") -> Iterator[tuple[str, str]]:
    """Give (path, reason) of every field set to something and of no consequence."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name not in model.model_fields_set or value == field.get_default(call_default_factory=True):
            continue
        if name == "export_to" and value == ("*",):
            # The default, written out.
            continue
        at = f"{path}.{field.alias or name}"
        if reason := WITHOUT_EFFECT.get((type(model), name)):
            yield at, reason
            continue
        yield from _inside(value, at)


def _inside(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from without_effect(value, path)
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            yield from _inside(one, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _inside(one, f"{path}.{key}")
