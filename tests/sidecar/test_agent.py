import asyncio
import contextlib

import pytest

from devmesh.runtimes.claims import PortClaims
from devmesh.sidecar import agent as module
from devmesh.sidecar.agent import Agent
from devmesh.sidecar.config import ConfigError, ProxyConfig
from devmesh.xds.rest import SIDECAR_TYPES
from tests.sidecar.bootstraps import bootstrap
from tests.sidecar.control import ControlPlane
from tests.support.waiting import until

NODE = bootstrap()["node"]


def parse(snapshot):
    for route in snapshot.get("routes", ()):
        if "bad" in route:
            raise ConfigError(route["name"], route["bad"])
    return ProxyConfig(snapshot["version"], {}, {}, {}, {}, raw=snapshot)


async def no_tls():
    return True


@pytest.fixture
def control():
    return ControlPlane()


@contextlib.asynccontextmanager
async def agent_of(port, **arguments):
    swapped = []

    async def swap(config):
        swapped.append(config.version)

    agent = Agent(f"http://127.0.0.1:{port}", NODE, parse=parse, swap=swap, context=no_tls, **arguments)
    task = asyncio.create_task(agent.run())
    try:
        yield agent, swapped
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def everywhere(version):
    return {name: [version] for name in SIDECAR_TYPES}


async def test_a_snapshot_is_swapped_once_and_every_type_acknowledged(control):
    control.put("v1")
    async with control.running() as port, agent_of(port) as (agent, swapped):
        await until(lambda: control.versions_acknowledged() == everywhere("v1"))
        control.put("v2")
        await until(lambda: control.versions_acknowledged() == everywhere("v2"))
        assert swapped == ["v1", "v2"]
        assert (agent.version, agent.connected) == ("v2", True)
    assert {node["id"] for node in control.nodes} == {NODE["id"]}


async def test_nothing_is_asked_twice_while_it_is_held(control):
    control.put("v1")
    async with control.running() as port, agent_of(port):
        await until(lambda: control.versions_acknowledged() == everywhere("v1"))
        count = len(control.requests)
        await asyncio.wait_for(asyncio.gather(*(asyncio.sleep(0) for _ in range(200))), 60)
        assert len(control.requests) == count
        assert count <= 15


async def test_what_cannot_be_run_is_refused_by_name_and_the_old_stays(control):
    control.put("v1")
    async with control.running() as port, agent_of(port) as (agent, swapped):
        await until(lambda: agent.version == "v1")
        control.put("v2", routes=[{"name": "9080", "bad": "no such cluster"}])
        await until(control.errors)
        assert control.errors() == {"routes": "9080: no such cluster"}
        assert (agent.version, agent.rejects) == ("v1", 1)
        refusal = next(request for _, request in control.requests if request.error)
        assert refusal.version == "v1"
        control.put("v3")
        await until(lambda: control.versions_acknowledged() == everywhere("v3"))
        assert swapped == ["v1", "v3"]


async def test_a_type_that_did_not_change_is_neither_sent_nor_lost(control):
    control.put("v1", routes=[{"name": "9080"}])
    async with control.running() as port, agent_of(port) as (agent, swapped):
        await until(lambda: agent.version == "v1")
        control.put("v2", versions=dict.fromkeys(SIDECAR_TYPES, "v1") | {"endpoints": "v2"}, endpoints=[{"cluster_name": "c"}])
        await until(lambda: control.versions_acknowledged() == everywhere("v1") | {"endpoints": ["v2"]})
    assert control.answered == [list(SIDECAR_TYPES), ["endpoints"]]
    assert swapped == ["v1", "v2"]


async def test_a_swap_is_no_reason_to_report(control, monkeypatch):
    monkeypatch.setattr(module, "REPORT_SECONDS", 3600.0)
    control.put("v1")
    async with control.running() as port, agent_of(port) as (agent, _):
        await until(lambda: agent.version == "v1")
        await until(lambda: control.reports)
        for number in range(2, 6):
            control.put(f"v{number}")
            await until(lambda wanted=f"v{number}": agent.version == wanted)
    assert len(control.reports) == 1


async def test_a_change_during_a_swap_ends_at_the_newest(control):
    async with control.running() as port, agent_of(port) as (_, swapped):
        for number in range(20):
            control.put(f"v{number}")
            await asyncio.sleep(0)
        await until(lambda: control.versions_acknowledged() == everywhere("v19"))
        assert swapped[-1] == "v19"


@pytest.mark.parametrize("status", [503, 403])
async def test_a_control_plane_that_says_no_is_asked_again(control, status):
    control.status = status
    async with control.running() as port, agent_of(port) as (agent, _):
        await until(lambda: str(status) in agent.last_error)
        control.status = None
        control.put("v1")
        await until(lambda: agent.version == "v1")


async def test_the_control_planes_absence_changes_nothing(control):
    control.put("v1")
    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(PortClaims()).prefer(0)  # nobody else's meanwhile
        async with control.running(port):
            agent, swapped = await stack.enter_async_context(agent_of(port))
            await until(lambda: agent.version == "v1")
        await until(lambda: not agent.connected)
        assert agent.version == "v1"
        restarted = ControlPlane()
        restarted.put("v1")
        async with restarted.running(port):
            await until(lambda: restarted.versions_acknowledged() == everywhere("v1"))
            restarted.put("v2")
            await until(lambda: agent.version == "v2")
        assert swapped == ["v1", "v2"]


async def test_health_is_reported_with_the_node_and_follows_app_and_configuration(control):
    app = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    serving = []
    target = app.sockets[0].getsockname()
    async with app, control.running() as port, agent_of(port, probe_targets=(target,), is_serving=lambda: bool(serving)):
        await until(lambda: control.reports)
        assert control.reports[-1] == {
            "node": {"id": NODE["id"]},
            "healthy": False,
            "detail": "the sidecar has no configuration yet",
            "restarts": 0,
        }
        serving.append(1)
        control.put("v1")
        await until(lambda: control.reports[-1]["healthy"])
