"""xDS over REST-JSON with long polls: both ends' values and state, no I/O.

A request names the version **in force** and the last nonce received. ACK: the new version in force. NACK: the old one, the new nonce
and `error_detail`. A request with a nonce whose version is not yet in force and no error says "still staging": the server holds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]
TYPE_URLS = {
    "listeners": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "clusters": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "routes": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "endpoints": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "names": "type.googleapis.com/istio.networking.nds.v1.NameTable",
    "secrets": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}
# Secrets of others' making (credentialName) are for gateways: nobody else asks for the type.
SIDECAR_TYPES = tuple(kind for kind in TYPE_URLS if kind != "secrets")
GATEWAY_TYPES = tuple(TYPE_URLS)
# google.rpc.Code.INVALID_ARGUMENT
INVALID_ARGUMENT = 3


class MalformedError(ValueError):
    """Not a discovery message; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class DiscoveryRequest:
    """What a proxy asks; `error` is its refusal of what `nonce` brought."""

    type_url: str
    node: Json = field(default_factory=dict)
    version: str = ""
    nonce: str = ""
    error: str | None = None

    @classmethod
    def parse(cls, body: Any) -> "DiscoveryRequest":
        """Read proto-JSON; MalformedError when it is none."""
        if not isinstance(body, Mapping):
            raise MalformedError("a DiscoveryRequest is a JSON object")
        error = body.get("error_detail")
        return cls(
            type_url=str(body.get("type_url") or ""),
            node=body.get("node") or {},
            version=str(body.get("version_info") or ""),
            nonce=str(body.get("response_nonce") or ""),
            error=None if not error else str(error.get("message") or "refused without a word"),
        )

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"type_url": self.type_url, "node": self.node, "resource_names": []}
        body |= {"version_info": self.version, "response_nonce": self.nonce}
        return body if self.error is None else body | {"error_detail": {"code": INVALID_ARGUMENT, "message": self.error}}


@dataclass(frozen=True, slots=True)
class DiscoveryResponse:
    """All resources of one type at one version."""

    version: str
    nonce: str
    resources: tuple[Json, ...]
    type_url: str = ""

    @classmethod
    def parse(cls, body: Any) -> "DiscoveryResponse":
        """Read proto-JSON; MalformedError when it is none."""
        if not isinstance(body, Mapping) or not body.get("version_info"):
            raise MalformedError("a DiscoveryResponse is a JSON object with version_info")
        resources = body.get("resources", ())
        if not isinstance(resources, list | tuple) or not all(isinstance(resource, Mapping) for resource in resources):
            raise MalformedError("resources of a DiscoveryResponse are JSON objects")
        return cls(str(body["version_info"]), str(body.get("nonce") or ""), tuple(resources), str(body.get("type_url") or ""))

    def to_json(self) -> dict[str, Any]:
        return {"version_info": self.version, "resources": list(self.resources), "nonce": self.nonce, "type_url": self.type_url}


def is_due(request: DiscoveryRequest, version: str, sent_nonce: str, sent_version: str) -> bool:
    """Whether a server answers now (else it holds): the proxy neither runs `version` nor has been sent it in its last reply."""
    if request.version == version:
        return False
    has_it = bool(request.nonce) and request.nonce == sent_nonce and sent_version == version
    return not has_it


@dataclass(slots=True)
class PollState:
    """A client's side of one type."""

    type_name: str
    in_force: str = ""
    nonce: str = ""
    error: str | None = None
    staged: DiscoveryResponse | None = None

    def request(self, node: Json) -> DiscoveryRequest:
        return DiscoveryRequest(TYPE_URLS[self.type_name], node, self.in_force, self.nonce, self.error)

    def received(self, response: DiscoveryResponse) -> None:
        self.nonce, self.error, self.staged = response.nonce, None, response

    def accepted(self, version: str) -> None:
        self.in_force, self.error, self.staged = version, None, None

    def refused(self, message: str | None) -> None:
        """Give the staged response up; `message` is None for a type that is not at fault itself."""
        self.error, self.staged = message, None

    def holds(self, name: str) -> bool:
        """Whether a resource of this name is among the staged ones."""
        resources = self.staged.resources if self.staged else ()
        return any(name in (resource.get("name"), resource.get("cluster_name")) for resource in resources)


class Staging:
    """The types of one proxy: nothing is in force before all of them brought the same version."""

    def __init__(self, types: Iterable[str] = SIDECAR_TYPES) -> None:
        self.polls = {name: PollState(name) for name in types}

    def is_contradictory(self) -> bool:
        """Whether staged types have different versions: those with the older one must ask again."""
        return len({poll.staged.version for poll in self.polls.values() if poll.staged}) > 1

    def snapshot(self) -> dict[str, Any] | None:
        """Give the whole staged snapshot, or None while a type is missing or of another version."""
        staged = {name: poll.staged for name, poll in self.polls.items()}
        versions = {response.version if response else None for response in staged.values()}
        if len(versions) != 1 or None in versions:
            return None
        snapshot: dict[str, Any] = {name: list(response.resources) for name, response in staged.items() if response}
        return snapshot | {"version": versions.pop()}

    def accept(self, version: str) -> None:
        for poll in self.polls.values():
            poll.accepted(version)

    def refuse(self, resource: str, message: str) -> None:
        """NACK with the type that holds the resource; with every type when none does."""
        at_fault = [name for name, poll in self.polls.items() if poll.holds(resource)] or list(self.polls)
        for name, poll in self.polls.items():
            poll.refused(message if name in at_fault else None)
