"""`bootstrap.json` (devmesh/README.md, "Sidecar bootstrap") as values that can only be right."""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devmesh.ca.address import CaAddress
from devmesh.ca.identity import TRUST_DOMAIN, SpiffeId
from devmesh.errors import InternalError

DATA_ROLES = frozenset({"inbound", "outbound", "published", "virtual_inbound", "virtual_outbound"})
POD_ROLES = frozenset({"dns", "connector"})
ADMIN_ROLES = frozenset({"admin", "health", "prometheus"})
ROLES = DATA_ROLES | POD_ROLES | ADMIN_ROLES
# Whom a sidecar takes for its control plane; the chain alone would let any workload pass for it.
CONTROL_PLANE = SpiffeId.of("devmesh-system", "controlplane", TRUST_DOMAIN)
Address = tuple[str, int]


class BootstrapError(InternalError):
    """The supervisor wrote something a sidecar cannot run."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "devmesh down, then devmesh up")


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    cluster: str
    metadata: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "cluster": self.cluster, "metadata": dict(self.metadata)}


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    service: str
    version: str
    namespace: str
    ip: str
    spiffe_id: SpiffeId
    gateway: bool


@dataclass(frozen=True, slots=True)
class Xds:
    url: str
    peer: SpiffeId


@dataclass(frozen=True, slots=True)
class Listening:
    """One socket; `fd` None: the sidecar binds it itself (tests, conformance)."""

    role: str
    address: str
    port: int
    fd: int | None
    original: Address | None


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    otlp_url: str | None
    access_log_file: Path | None
    access_log_encoding: str


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Exactly one of `xds` and `snapshot` is set; `ca` may only be absent with a snapshot."""

    node: Node
    workload: Workload
    xds: Xds | None
    snapshot: Path | None
    ca: CaAddress | None
    sockets: tuple[Listening, ...]
    dial: Mapping[str, Address]
    telemetry: TelemetrySettings
    admin_token: str | None
    aliases: Mapping[str, str] = field(default_factory=dict)  # what an address means on this machine: the host's loopback, for a pod
    elsewhere: Mapping[Address, Address] = field(default_factory=dict)  # what one port of an address means, in a container
    shift: tuple[int, int] = (0, 0)  # ports of workloads below the first are on this machine that much higher
    alias_names: Mapping[str, str] = field(default_factory=dict)  # further host name -> its address, perhaps one of `aliases`
    refused_names: tuple[str, ...] = ()  # host names that have an address, past the mesh, and are answered with none
    files: Path | None = None  # where relative names of files in the configuration begin
    excluded: frozenset[Address] = frozenset()  # destinations that pass unseen, as Istio's excludeOutboundIPRanges

    @classmethod
    def load(cls, path: Path) -> "Bootstrap":
        """Read a file; BootstrapError names it and what is wrong."""
        try:
            return cls.parse(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise BootstrapError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Bootstrap":
        """Read the JSON value; BootstrapError for a missing or wrong field."""
        try:
            return _bootstrap(value)
        except KeyError as error:
            raise BootstrapError(f"bootstrap lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise BootstrapError(f"bootstrap: {error}") from error


def parse_address(text: str) -> Address:
    """Read `127.7.0.3:9080`; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not address:port")
    return host.strip("[]"), int(port)


def check_forbidden(ranges: Iterable[str]) -> None:
    """Refuse a range that the data path does not close by itself (devmesh.sidecar.outbound): it must not stay open in silence."""
    for text in ranges:
        network = ipaddress.ip_network(text)
        if not (network.is_loopback or network.is_link_local or network.is_unspecified):
            raise ValueError(f"forbidden_destinations: {text} is not loopback or link-local, which are all a sidecar can forbid")


def _bootstrap(value: Mapping[str, Any]) -> Bootstrap:
    xds, snapshot, ca = value.get("xds"), value.get("snapshot"), value.get("ca")
    if (xds is None) == (snapshot is None):
        raise ValueError("either xds or snapshot must be set")
    if xds is not None and ca is None:
        raise ValueError("xds needs ca: the control plane is spoken to over mTLS")
    telemetry = value.get("telemetry") or {}
    check_forbidden((value.get("mesh") or {}).get("forbidden_destinations") or ())
    log_file = telemetry.get("access_log_file")
    return Bootstrap(
        node=Node(value["node"]["id"], value["node"].get("cluster", ""), value["node"].get("metadata") or {}),
        workload=_workload(value["workload"]),
        xds=Xds(xds["url"], SpiffeId.parse(xds.get("spiffe_id") or str(CONTROL_PLANE))) if xds else None,
        snapshot=Path(snapshot) if snapshot else None,
        ca=CaAddress(ca["url"], Path(ca["root_file"]), Path(ca["token_file"]), ca.get("secret_ttl")) if ca else None,
        sockets=tuple(_listening(socket) for socket in value.get("sockets", ())),
        dial={str(original): parse_address(actual) for original, actual in (value.get("dial") or {}).items()},
        telemetry=TelemetrySettings(
            telemetry.get("otlp_url"), Path(log_file) if log_file else None, telemetry.get("access_log_encoding") or "TEXT"
        ),
        admin_token=(value.get("admin") or {}).get("token"),
        aliases=dict(value.get("aliases") or {}),
        elsewhere={parse_address(stands): parse_address(actual) for stands, actual in (value.get("elsewhere") or {}).items()},
        shift=_shift(value.get("shift") or {}),
        alias_names=dict(value.get("alias_names") or {}),
        refused_names=tuple(value.get("refused_names") or ()),
        files=Path(value["files"]) if value.get("files") else None,
        excluded=frozenset(map(parse_address, value.get("excluded") or ())),
    )


def _shift(value: Mapping[str, Any]) -> tuple[int, int]:
    return int(value.get("below") or 0), int(value.get("by") or 0)


def _workload(value: Mapping[str, Any]) -> Workload:
    return Workload(
        name=value["name"],
        service=value["service"],
        version=value.get("version") or "v1",
        namespace=value["namespace"],
        ip=value["ip"],
        spiffe_id=SpiffeId.parse(value["spiffe_id"]),
        gateway=bool(value.get("gateway")),
    )


def _listening(value: Mapping[str, Any]) -> Listening:
    if value["role"] not in ROLES:
        raise ValueError(f"socket role {value['role']!r} is none of {', '.join(sorted(ROLES))}")
    original = value.get("original")
    if value["role"] == "published" and not original:
        raise ValueError("a published socket needs original, the workload's own address:port")
    return Listening(value["role"], value["address"], int(value["port"]), value.get("fd"), parse_address(original) if original else None)
