"""Consul's JSON: request bodies into values, values into response bodies. Field names as in Consul 1.8."""

import base64
from typing import Any

from devmesh.config.durations import parse_duration
from devmesh.errors import DevmeshError
from devmesh.registry.embedded.store import STATUSES, Check, HttpProbe, KvEntry, KvOperation, Service

NODE_NAME = "devmesh"
NODE_ID = "6f1d1d1e-0000-4000-8000-646576206d65"
NODE_ADDRESS = "127.0.0.1"
DATACENTER = "dc1"


class BadRequestError(DevmeshError):
    """400: the body does not say what Consul's API expects."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "devmesh logs registry")


def folded(body: Any) -> dict[str, Any]:
    """Consul takes `ServiceID`, `service_id` and `serviceid` alike."""
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return {key.replace("_", "").lower(): value for key, value in body.items()}


def parse_service(body: Any) -> tuple[Service, list[Check]]:
    fields = folded(body)
    name = fields.get("name") or ""
    if not name:
        raise BadRequestError("Missing service name")
    service = Service(
        id=fields.get("id") or name,
        name=name,
        address=fields.get("address") or "",
        port=int(fields.get("port") or 0),
        tags=tuple(fields.get("tags") or ()),
        meta={str(key): str(value) for key, value in (fields.get("meta") or {}).items()},
        tagged_addresses={key: _tagged(value) for key, value in (fields.get("taggedaddresses") or {}).items()},
    )
    bodies = list(fields.get("checks") or []) + ([fields["check"]] if fields.get("check") else [])
    return service, [parse_check(item, service, position, len(bodies)) for position, item in enumerate(bodies, 1)]


def _tagged(body: Any) -> dict[str, str | int]:
    fields = folded(body)
    return {"Address": str(fields.get("address", "")), "Port": int(fields.get("port") or 0)}


def parse_check(body: Any, service: Service | None = None, position: int = 1, of: int = 1) -> Check:
    """Read a check of a service (its default id is Consul's `service:<id>[:n]`) or, without one, of the node."""
    fields = folded(body)
    default_id = f"service:{service.id}" + (f":{position}" if of > 1 else "") if service else fields.get("name", "")
    status = fields.get("status") or "critical"
    if status not in STATUSES:
        raise BadRequestError(f"Bad check status {status!r}")
    check = Check(
        id=fields.get("checkid") or fields.get("id") or default_id,
        name=fields.get("name") or (f"Service '{service.name}' check" if service else ""),
        service_id=service.id if service else fields.get("serviceid") or "",
        service_name=service.name if service else "",
        status=status,
        notes=fields.get("notes") or "",
        ttl=parse_duration(fields["ttl"]) if fields.get("ttl") else 0.0,
        http=_probe(fields),
        deregister_after=parse_duration(fields["deregistercriticalserviceafter"]) if fields.get("deregistercriticalserviceafter") else 0.0,
    )
    if not check.kind:
        raise BadRequestError("devmesh's registry knows TTL and HTTP checks only")
    if not check.id:
        raise BadRequestError("Missing check name")
    return check


def _probe(fields: dict[str, Any]) -> HttpProbe | None:
    if not fields.get("http"):
        return None
    if not fields.get("interval"):
        raise BadRequestError("Interval must be > 0 for HTTP checks")
    return HttpProbe(
        url=str(fields["http"]),
        interval=parse_duration(fields["interval"]),
        timeout=parse_duration(fields["timeout"]) if fields.get("timeout") else 10.0,
        method=str(fields.get("method") or "GET"),
    )


def parse_operations(body: Any) -> list[KvOperation]:
    if not isinstance(body, list):
        raise BadRequestError("the body must be a JSON array")
    return [_operation(item) for item in body]


def _operation(item: Any) -> KvOperation:
    kv = folded(folded(item).get("kv"))
    return KvOperation(
        verb=str(kv.get("verb", "")),
        key=str(kv.get("key", "")),
        value=base64.b64decode(kv.get("value") or ""),
        flags=int(kv.get("flags") or 0),
        index=int(kv.get("index") or 0),
    )


def kv(entry: KvEntry) -> dict[str, Any]:
    return {
        "LockIndex": 0,
        "Key": entry.key,
        "Flags": entry.flags,
        "Value": base64.b64encode(entry.value).decode() or None,
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    }


def node() -> dict[str, Any]:
    return {
        "ID": NODE_ID,
        "Node": NODE_NAME,
        "Address": NODE_ADDRESS,
        "Datacenter": DATACENTER,
        "TaggedAddresses": {"lan": NODE_ADDRESS, "wan": NODE_ADDRESS},
        "Meta": {},
        "CreateIndex": 1,
        "ModifyIndex": 1,
    }


def agent_service(service: Service) -> dict[str, Any]:
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        "TaggedAddresses": service.tagged_addresses,
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
    }


def health_service(service: Service, checks: list[Check]) -> dict[str, Any]:
    stamped = agent_service(service) | {"CreateIndex": service.create_index, "ModifyIndex": service.modify_index}
    return {"Node": node(), "Service": stamped, "Checks": [health_check(check) for check in checks]}


def catalog_service(service: Service) -> dict[str, Any]:
    plain = node()
    return {
        **{key: plain[key] for key in ("ID", "Node", "Address", "Datacenter", "TaggedAddresses")},
        "NodeMeta": {},
        "ServiceID": service.id,
        "ServiceName": service.name,
        "ServiceTags": list(service.tags),
        "ServiceAddress": service.address,
        "ServiceTaggedAddresses": service.tagged_addresses,
        "ServiceWeights": {"Passing": 1, "Warning": 1},
        "ServiceMeta": service.meta,
        "ServicePort": service.port,
        "ServiceEnableTagOverride": False,
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }


def health_check(check: Check) -> dict[str, Any]:
    return {
        "Node": NODE_NAME,
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service_name,
        "ServiceTags": [],
        "Type": check.kind,
        "Definition": {},
        "CreateIndex": check.create_index,
        "ModifyIndex": check.modify_index,
    }


def agent_self() -> dict[str, Any]:
    config = {"Datacenter": DATACENTER, "NodeName": NODE_NAME, "NodeID": NODE_ID, "Server": True, "Version": "devmesh", "Revision": ""}
    return {"Config": config, "Member": {"Name": NODE_NAME, "Addr": NODE_ADDRESS, "Status": 1}, "Meta": {}}
