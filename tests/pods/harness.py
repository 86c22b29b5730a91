"""One real pod without a mesh around it: the test has the sidecar's sockets and the supervisor's channel."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devmesh.config.topology_types import Workload
from devmesh.pods.namespaces import CLONE_NEWNET
from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.plan import WorkloadPlan
from devmesh.runtimes.local.pods import Pods
from devmesh.runtimes.processes import start_time, stop_all
from devmesh.sidecar.dialer import PodConnector
from tests.support.waiting import LIMIT, until

ADDRESS = "127.7.250.1"


@dataclass
class OnePod:
    plan: WorkloadPlan
    pods: Pods
    log: Path
    outer_pid: int = 0
    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    @property
    def init_pid(self) -> int:
        return self.pods["app"].init_pid

    def sockets(self, role: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        return next(one.sock for one in self.plan.sockets if one.role == role and (one.sock.family, one.sock.type) == (family, kind))

    def connector(self) -> PodConnector:
        return PodConnector(next(one.sock for one in self.plan.sockets if one.role == "connector").dup())

    def start(self, script: str, *, ports: tuple[int, ...] = ()) -> None:
        """Start a Python app."""
        self.plan.app_ports = {port: port for port in ports}
        request = {"argv": [sys.executable, "-c", script], "environment": dict(os.environ), "cwd": "/"}
        with self.log.open("ab") as log:
            self.pods.start_app("app", request, log.fileno())

    async def event(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(LIMIT):
            while True:
                event = await self.events.get()
                if event["event"] == name:
                    return event

    async def output(self, script: str) -> str:
        """What an app prints until it ends."""
        self.log.write_text("")
        self.start(script)
        await self.event("exited")
        return self.log.read_text()

    async def accept(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        async with asyncio.timeout(LIMIT):
            return (await asyncio.get_running_loop().sock_accept(sock))[0]


async def gone(pid: int) -> None:
    await until(lambda: start_time(pid) is None, LIMIT)


LAUNCHER = """
import socket, sys
from devmesh.launch import Launcher
Launcher(socket.socket(fileno=int(sys.argv[1])), modules={"pod": ["devmesh.pods.init"]}).serve()
"""


def pods_launcher(files: MeshFiles) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A launcher that forks pods and imports nothing else, and our end of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs, files.log("launcher").open("ab") as log:
        argv = [sys.executable, "-c", LAUNCHER, str(theirs.fileno())]
        return subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stdout=log, stderr=log, start_new_session=True), ours


@contextlib.asynccontextmanager
async def one_pod(folder: Path) -> AsyncIterator[OnePod]:
    files = MeshFiles.of(folder / "compose.yaml")
    files.make()
    launcher, channel = await asyncio.to_thread(pods_launcher, files)
    plan = WorkloadPlan(Workload("app", "default", "app", "v1", {}, "default", ADDRESS, (9080,)), "namespace")
    pods = Pods(files, lambda _, event: pod.events.put_nowait(event))
    pod = OnePod(plan, pods, folder / "app.log")
    arguments, theirs = pods.ask(plan)
    request = {"name": "app-pod", "entry": "pod", "arguments": arguments, "log": str(files.log("app-pod"))}
    try:
        with theirs:
            socket.send_fds(channel, [json.dumps(request).encode()], [theirs.fileno()])
        async with asyncio.timeout(LIMIT):
            pod.outer_pid = await started(channel)
            problem = await pods.all_made()
        assert problem is None, problem
        yield pod
    finally:
        await asyncio.to_thread(stop_all, [(pod.outer_pid, start_time(pod.outer_pid) or 0)], 5.0)
        pods.close()
        channel.close()
        await asyncio.to_thread(launcher.wait, LIMIT)


async def started(channel: socket.socket) -> int:
    while True:
        event = json.loads(await asyncio.get_running_loop().sock_recv(channel, 65536))
        if event["event"] == "started":
            return int(event["pid"])


def connect_inside(init_pid: int, destination: tuple[str, int]) -> socket.socket:
    """A socket of the pod's network, connected there. Call it in a thread: the thread's network is the pod's meanwhile (setns(2), as root)."""
    with Path("/proc/thread-self/ns/net").open() as own, Path(f"/proc/{init_pid}/ns/net").open() as theirs:
        _join(theirs.fileno())
        try:
            sock = socket.socket()
            sock.settimeout(LIMIT)
            sock.connect(destination)
        finally:
            _join(own.fileno())
    sock.setblocking(False)
    return sock


def _join(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
