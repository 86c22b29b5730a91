"""Who has which address: the mesh's number, its sockets, its published ports, what each process is started with."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from devmesh.config.topology import GATEWAY
from devmesh.config.topology_types import Topology, Workload
from devmesh.runtimes.claims import claim_port, claim_usual_port
from devmesh.runtimes.local.ports import OUTBOUND_PORT, SHIFT
from devmesh.runtimes.processes import port_in_use


def bind(address: str, port: int, what: str) -> socket.socket:
    """A bound stream socket; raises DevmeshError naming who has the port."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise port_in_use(address, port, what) from error
    return sock


def bind_preferring(address: str, port: int) -> socket.socket:
    """`port`, or one of its own where another has it, or is about to: what a Docker engine publishes is bound some time after it was chosen."""
    chosen, held = claim_usual_port(port)
    with held:
        return bind(address, chosen, "chosen as free")


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class SidecarSocket:
    role: str
    address: str
    port: int
    sock: socket.socket
    original: tuple[str, int] | None = None

    def to_json(self) -> dict[str, object]:
        return {"role": self.role, "address": self.address, "port": self.port, "original": list(self.original) if self.original else None}


@dataclass(slots=True)
class WorkloadPlan:
    """`app_port` is where the app itself listens (PORT), by the service's own port."""

    workload: Workload
    interception: str = "proxy"  # proxy | namespace
    sockets: list[SidecarSocket] = field(default_factory=list)
    app_ports: dict[int, int] = field(default_factory=dict)
    claims: list[socket.socket] = field(default_factory=list)

    def add(self, role: str, address: str, port: int, what: str, original: tuple[str, int] | None = None) -> SidecarSocket:
        sock = bind(address, port, what)
        made = SidecarSocket(role, address, port_of(sock), sock, original)
        self.sockets.append(made)
        return made

    def socket(self, role: str) -> SidecarSocket | None:
        return next((one for one in self.sockets if one.role == role), None)

    def published_port(self, port: int) -> int | None:
        """Where one of the workload's own ports is on 127.0.0.1."""
        own = (self.workload.ip, port)
        return next((one.port for one in self.sockets if one.role == "published" and one.original == own), None)

    def url(self) -> str | None:
        """Where a browser on this machine reaches it: its first published socket."""
        found = self.socket("published")
        return f"http://127.0.0.1:{found.port}" if found else None


def plan_workload(workload: Workload, interception: str = "proxy") -> WorkloadPlan:
    """Bind everything one sidecar listens on. Raises DevmeshError for a port in use."""
    plan = WorkloadPlan(workload, interception="proxy" if workload.gateway else interception)
    for port in workload.ports:
        actual = shifted(port)
        plan.add("inbound", workload.ip, actual, f"{workload.name}'s own port", (workload.ip, port) if actual != port else None)
    if plan.interception == "proxy":
        plan.add("outbound", workload.ip, OUTBOUND_PORT, f"{workload.name}'s outbound proxy")
    for role in ("admin", "health", "prometheus"):
        plan.add(role, "127.0.0.1", 0, role)
    if workload.gateway:
        if workload.name != GATEWAY:
            return plan  # an egress gateway is called from inside only
        for port in workload.ports:  # where a browser finds them, when they are free
            sock = bind_preferring("127.0.0.1", port)
            plan.sockets.append(SidecarSocket("published", "127.0.0.1", port_of(sock), sock, (workload.ip, port)))
        return plan
    for published in workload.published:
        what = f"published by {workload.name}"
        plan.add("published", "127.0.0.1", published.host_port, what, (workload.ip, published.container_port))
    if not workload.published and workload.ports:
        plan.add("published", "127.0.0.1", 0, workload.name, (workload.ip, workload.ports[0]))
    plan.app_ports = _claim_app_ports(plan) if plan.interception == "proxy" else {port: port for port in workload.ports}
    return plan


def first_bindable_port() -> int:
    """The first port that this user may bind (ip-sysctl: ip_unprivileged_port_start)."""
    if os.geteuid() == 0:
        return 0
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except OSError:
        return 1024


def shifted(port: int) -> int:
    """Where a workload's port is on the machine: sidecars apply the same table when they dial (bootstrap.json, `shift`)."""
    return port + SHIFT if port < first_bindable_port() else port


def _claim_app_ports(plan: WorkloadPlan) -> dict[int, int]:
    found = {}
    for port in plan.workload.ports:
        found[port], held = claim_port()
        plan.claims.append(held)
    return found


def plan_all(topology: Topology, interception: str = "proxy") -> dict[str, WorkloadPlan]:
    return {workload.name: plan_workload(workload, interception) for workload in topology.workloads}


def close_all(plans: dict[str, WorkloadPlan]) -> None:
    for plan in plans.values():
        for sock in [*(one.sock for one in plan.sockets), *plan.claims]:
            sock.close()
