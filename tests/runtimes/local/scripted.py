"""Launchers and plans without processes and sockets."""

from __future__ import annotations

from devmesh.config.topology_types import Workload
from devmesh.runtimes.local.plan import WorkloadPlan


class ScriptedLaunchers:
    make_pods = False

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []

    @property
    def forked(self):
        return [one["name"] for one in self.requests]

    def fork(self, request, _sockets, *, pod):
        assert not pod
        self.requests.append(request)

    def state(self):
        return {}

    async def end(self):
        pass


def plan(name, *ports):
    workload = Workload(name, "default", name, "v1", {}, "default", "127.7.0.1", ports)
    return WorkloadPlan(workload, app_ports={port: port for port in ports})
