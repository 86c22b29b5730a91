"""The pods of one mesh as its supervisor holds them: asked for, made, their apps started, their sockets kept for the sidecars."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devmesh.config.topology_types import Service, Topology
from devmesh.pods.names import host_aliases, hosts_file, read_or_empty, resolv_conf
from devmesh.pods.wire import receive
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.plan import SidecarSocket, WorkloadPlan

MAX_EVENT = 64 * 1024
MAX_SOCKETS = 16
POD_ROLES = ("virtual_outbound", "dns", "connector")
Told = Callable[[str, dict[str, Any]], None]


@dataclass(slots=True)
class Pod:
    """`problem` says why it could not be made."""

    plan: WorkloadPlan
    channel: socket.socket
    init_pid: int = 0
    seconds: float = 0.0
    problem: str | None = None
    notes: list[str] = field(default_factory=list)
    made: asyncio.Event = field(default_factory=asyncio.Event)


class Pods:
    """Events of an app inside (`app`, `listening`, `exited`) go on to `told` with the workload's name."""

    def __init__(self, files: MeshFiles, told: Told) -> None:
        self._files, self._told = files, told
        self._pods: dict[str, Pod] = {}
        self._services: tuple[Service, ...] = ()

    def know(self, topology: Topology) -> None:
        """Learn the names that pods are to resolve."""
        self._services = topology.services

    def __getitem__(self, name: str) -> Pod:
        return self._pods[name]

    def __contains__(self, name: str) -> bool:
        return name in self._pods

    def ask(self, plan: WorkloadPlan) -> tuple[dict[str, Any], socket.socket]:
        """What a launcher is told to make this workload's pod, and the init's end of its channel. A dead pod's place is taken."""
        workload = plan.workload
        self.forget(workload.name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003 - socket's own signature
        pod = self._pods[workload.name] = Pod(plan, ours)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read, pod)
        hosts, resolver = self._write_files(plan)
        arguments = {
            "name": workload.name,
            "address": workload.ip,
            "hosts": str(hosts),
            "resolv_conf": str(resolver),
            "uid": os.geteuid(),
            "gid": os.getegid(),
        }
        return arguments, theirs

    def _write_files(self, plan: WorkloadPlan) -> tuple[Path, Path]:
        """Readable by every user inside: an app may run as another one."""
        workload, directory = plan.workload, self._files.pod(plan.workload.name)
        vips = {
            one.cluster_ip: [
                alias for name in (one.name, *one.aliases_for(workload)) for alias in host_aliases(name, one.namespace, workload.namespace)
            ]
            for one in self._services
        }
        hosts, resolver = directory / "hosts", directory / "resolv.conf"
        hosts.write_text(hosts_file(read_or_empty("/etc/hosts"), workload.name, workload.ip, vips))
        resolver.write_text(resolv_conf(read_or_empty("/etc/resolv.conf"), workload.namespace))
        for path in (hosts, resolver):
            path.chmod(0o644)
        return hosts, resolver

    def _read(self, pod: Pod) -> None:
        received = receive(pod.channel, MAX_EVENT, MAX_SOCKETS)
        if received is None:
            return
        data, fds = received
        if not data:
            asyncio.get_running_loop().remove_reader(pod.channel.fileno())
            if not pod.made.is_set():
                self._fail(pod, "the pod's init ended")
            return
        event = json.loads(data)
        if event["event"] == "init":
            pod.init_pid = event["pid"]
        elif event["event"] == "pod":
            self._made(pod, event, fds)
        elif event["event"] == "failed":
            self._fail(pod, event["why"])
        else:
            self._told(pod.plan.workload.name, event)

    def _made(self, pod: Pod, event: dict[str, Any], fds: list[int]) -> None:
        pod.seconds, pod.notes = event["seconds"], event["notes"]
        specs = [*event["sockets"], {"role": "connector", "address": "", "port": 0}]
        pod.plan.sockets = [one for one in pod.plan.sockets if one.role not in POD_ROLES]
        for spec, fd in zip(specs, fds, strict=True):
            pod.plan.sockets.append(SidecarSocket(spec["role"], spec["address"], spec["port"], socket.socket(fileno=fd)))
        pod.made.set()
        self._told(pod.plan.workload.name, {"event": "pod"})

    def _fail(self, pod: Pod, why: str) -> None:
        pod.problem = why
        pod.made.set()

    async def all_made(self) -> str | None:
        """Wait for every pod; why one could not be made."""
        for pod in self._pods.values():
            await pod.made.wait()
        return next((pod.problem for pod in self._pods.values() if pod.problem), None)

    def start_app(self, name: str, request: dict[str, Any], log: int) -> None:
        """Tell the init; `app`, then `listening` or `exited` follow. Raises OSError when the init is gone."""
        pod = self._pods[name]
        command = {
            "command": "start",
            "argv": request["argv"],
            "environment": request["environment"],
            "cwd": request["cwd"],
            "ports": list(pod.plan.app_ports),
        }
        socket.send_fds(pod.channel, [json.dumps(command).encode()], [log])

    def check(self, name: str, command: dict[str, Any]) -> None:
        """Have a healthcheck's run done; `checked` follows. Raises OSError when the init is gone."""
        self._pods[name].channel.send(json.dumps(command).encode())

    def signal(self, name: str, number: int, *, everything: bool) -> None:
        """Send a signal to the app's process group, or to everything in the pod. Raises OSError when the init is gone."""
        self._pods[name].channel.send(json.dumps({"command": "signal", "signal": number, "everything": everything}).encode())

    def outside_pid(self, name: str, inside: int) -> int:
        """The app's pid as the machine knows it; 0 when it ended already (proc(5), NSpid)."""
        init = self._pods[name].init_pid
        try:
            children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        except OSError:
            return 0
        return next((int(child) for child in children if _inside(int(child)) == inside), 0)

    def forget(self, name: str) -> None:
        """Close what a dead pod has left us."""
        pod = self._pods.pop(name, None)
        if pod is None:
            return
        asyncio.get_running_loop().remove_reader(pod.channel.fileno())
        pod.channel.close()
        for one in [one for one in pod.plan.sockets if one.role in POD_ROLES]:
            one.sock.close()
            pod.plan.sockets.remove(one)

    def close(self) -> None:
        for name in list(self._pods):
            self.forget(name)


def _inside(pid: int) -> int:
    """The innermost pid of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), 0)
