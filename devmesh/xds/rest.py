"""xDS over REST-JSON with long polls: both ends' values and state, no I/O.

A request names the version **in force** and the last nonce received. ACK: the new version in force. NACK: the old one, the new nonce
and `error_detail`. A request with a nonce whose version is not yet in force and no error says "still staging": the server holds it.

Envoy polls for each type by itself. An aggregated poll (as ADS is to gRPC) holds the requests of all types: `{"node", "requests": [..]}`, each
without a node of its own. What is due to any of them is answered together, `{"version_info", "responses": [..]}`: what the proxy has then is one
whole snapshot of that version, and types that did not change are not in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = Mapping[str, Any]
TYPE_URLS = {
    "listeners": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "clusters": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "routes": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "endpoints": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "names": "type.googleapis.com/istio.networking.nds.v1.NameTable",
    "secrets": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}
KINDS = {url: kind for kind, url in TYPE_URLS.items()}
AGGREGATED = "aggregated"  # in place of a type in the path
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


def aggregated_requests(body: Any) -> dict[str, DiscoveryRequest]:
    """Read an aggregated poll, by type; MalformedError when it is none."""
    listed = body.get("requests") if isinstance(body, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise MalformedError("an aggregated poll is a JSON object with requests")
    requests = [DiscoveryRequest.parse(one) for one in listed]
    unknown = sorted({one.type_url for one in requests} - KINDS.keys())
    if unknown:
        raise MalformedError(f"no such type: {', '.join(unknown)}")
    return {KINDS[one.type_url]: one for one in requests}


@dataclass(frozen=True, slots=True)
class DiscoveryResponse:
    """All resources of one type at one version; `texts` are these as JSON, where their sender has it."""

    version: str
    nonce: str
    resources: tuple[Json, ...]
    type_url: str = ""
    texts: tuple[bytes, ...] | None = field(default=None, compare=False)

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
        """For `orjson.dumps` alone."""
        resources = list(self.resources) if self.texts is None else orjson.Fragment(b"[%b]" % b",".join(self.texts))
        return {"version_info": self.version, "resources": resources, "nonce": self.nonce, "type_url": self.type_url}


@dataclass(frozen=True, slots=True)
class AggregatedResponse:
    """What makes of the snapshot that a proxy has the one of `version`."""

    version: str
    responses: Mapping[str, DiscoveryResponse]  # by type

    @classmethod
    def parse(cls, body: Any) -> "AggregatedResponse":
        """Read what `to_json` gave; MalformedError when it is something else."""
        if not isinstance(body, Mapping) or not body.get("version_info") or not isinstance(body.get("responses"), list):
            raise MalformedError("an answer to an aggregated poll is a JSON object with version_info and responses")
        responses = [DiscoveryResponse.parse(one) for one in body["responses"]]
        unknown = sorted({one.type_url for one in responses} - KINDS.keys())
        if unknown:
            raise MalformedError(f"no such type: {', '.join(unknown)}")
        return cls(str(body["version_info"]), {KINDS[one.type_url]: one for one in responses})

    def to_json(self) -> dict[str, Any]:
        """For `orjson.dumps` alone."""
        return {"version_info": self.version, "responses": [one.to_json() for one in self.responses.values()]}


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

    def request(self) -> DiscoveryRequest:
        return DiscoveryRequest(TYPE_URLS[self.type_name], {}, self.in_force, self.nonce, self.error)

    def received(self, response: DiscoveryResponse) -> None:
        self.nonce, self.error, self.staged = response.nonce, None, response

    def accepted(self) -> None:
        self.error = None
        if self.staged is not None:
            self.in_force, self.staged = self.staged.version, None

    def refused(self, message: str | None) -> None:
        """Give the staged response up; `message` is None for a type that is not at fault itself."""
        if self.staged is not None:
            self.error, self.staged = message, None

    def holds(self, name: str) -> bool:
        """Whether a resource of this name is among the staged ones."""
        resources = self.staged.resources if self.staged else ()
        return any(name in (resource.get("name"), resource.get("cluster_name")) for resource in resources)


class Conversation:
    """The types of one proxy: what an answer brings is in force together, or refused together."""

    def __init__(self, types: Sequence[str] = SIDECAR_TYPES) -> None:
        self.polls = {name: PollState(name) for name in types}

    def request(self, node: Json) -> dict[str, Any]:
        """Make the next poll, which says what became of the last answer."""
        requests = [poll.request().to_json() for poll in self.polls.values()]
        return {"node": node, "requests": [{key: value for key, value in one.items() if key != "node"} for one in requests]}

    def received(self, answer: AggregatedResponse) -> dict[str, Any]:
        """Stage an answer; `{"version", "versions", <type>: resources}` with the types that are not as they were."""
        for name, response in answer.responses.items():
            if name in self.polls:
                self.polls[name].received(response)
        staged = {name: poll.staged for name, poll in self.polls.items() if poll.staged}
        versions = {name: poll.staged.version if poll.staged else poll.in_force for name, poll in self.polls.items()}
        return {name: list(one.resources) for name, one in staged.items()} | {"version": answer.version, "versions": versions}

    def accept(self) -> None:
        for poll in self.polls.values():
            poll.accepted()

    def refuse(self, resource: str, message: str) -> None:
        """NACK with the type that holds the resource; with every type of the answer when none does."""
        at_fault = [name for name, poll in self.polls.items() if poll.holds(resource)] or list(self.polls)
        for name, poll in self.polls.items():
            poll.refused(message if name in at_fault else None)
