import asyncio
import signal
import socket
import subprocess
import sys

import orjson
from aiohttp import web

from devmesh.sidecar.bootstrap import CONTROL_PLANE
from devmesh.xds.rest import SIDECAR_TYPES
from tests.ca.running import REVIEWS, running_ca
from tests.sidecar.bootstraps import bootstrap
from tests.sidecar.control import ControlPlane
from tests.sidecar.life import SNAPSHOT, living, snapshot_file
from tests.support.waiting import until


async def test_a_snapshot_file_makes_it_live_and_quitting_ends_it(tmp_path):
    async with living(xds=None, ca=None, snapshot=snapshot_file(tmp_path)) as ports:
        assert await ports.call("health", "/healthz/ready") == (200, "")
        assert (await ports.json("/server_info"))["state"] == "LIVE"


async def test_before_its_certificate_it_is_not_ready_and_says_why(tmp_path):
    ca = {"url": "https://127.0.0.1:1", "root_file": str(tmp_path / "root.pem"), "token_file": str(tmp_path / "token")}
    async with living(wait=False, ca=ca) as ports:
        status, text = await ports.call("health", "/healthz/ready")
        assert (status, text.partition(":")[0]) == (503, "no certificate yet")
        assert (await ports.call("admin", "/ready"))[0] == 503
        async with asyncio.timeout(60):
            while not (said := (await ports.json("/server_info"))["ca"]["error"]):
                pass
        assert "no workload token" in said, "what `devmesh status` shows when a certificate has ended"


class MeshOfOne:
    """A real CA and a control plane over mTLS with its own SVID."""

    def __init__(self, ca, directory):
        self.ca, self.directory, self.control = ca, directory, ControlPlane()

    async def serve(self, spiffe_id=CONTROL_PLANE):
        identity = await self.ca.workload(self.directory, spiffe_id, "controlplane")
        await identity.renew()
        app = web.Application()
        app.router.add_post("/v3/discovery:aggregated", self.control._discovery)
        app.router.add_post("/v1/health", self.control._health)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await runner.setup()
        sock = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, sock, ssl_context=identity.server_context()).start()
        return runner, f"https://127.0.0.1:{sock.getsockname()[1]}"

    async def settings(self, url):
        reviews = await self.ca.workload(self.directory)
        address = reviews._ca
        ca = {"url": address.url, "root_file": str(address.root_file), "token_file": str(address.token_file)}
        return {"ca": ca, "xds": {"url": url}}


async def test_certificate_configuration_and_health_come_over_mtls(tmp_path):
    async with running_ca(tmp_path / "ca") as ca:
        mesh = MeshOfOne(ca, tmp_path)
        runner, url = await mesh.serve()
        mesh.control.put("v1", **{name: SNAPSHOT[name] for name in SIDECAR_TYPES})
        try:
            async with living(**await mesh.settings(url)) as ports:
                await until(lambda: mesh.control.versions_acknowledged() == {name: ["v1"] for name in SIDECAR_TYPES})
                await until(lambda: mesh.control.reports and mesh.control.reports[-1]["healthy"])
                certificates = (await ports.json("/certs"))["certificates"][0]
                assert certificates["cert_chain"][0]["subject_alt_names"] == [{"uri": str(REVIEWS)}]
                dump = await ports.call("admin", "/config_dump")
                assert "PRIVATE KEY" not in dump[1]
                mesh.control.put("v2", clusters=[{"name": "broken", "type": "EDS", "lb_policy": "NO_SUCH"}])
                await until(mesh.control.errors)
                assert "broken" in mesh.control.errors()["clusters"]
                assert (await ports.json("/server_info"))["xds"] == {"version": "v1", "connected": True}
        finally:
            await runner.cleanup()


async def test_a_workload_that_passes_for_the_control_plane_is_not_believed(tmp_path):
    async with running_ca(tmp_path / "ca") as ca:
        mesh = MeshOfOne(ca, tmp_path)
        runner, url = await mesh.serve(REVIEWS)
        mesh.control.put("v1")
        try:
            async with living(wait=False, **await mesh.settings(url)) as ports:
                async with asyncio.timeout(60):
                    while f"not {CONTROL_PLANE}" not in (await ports.call("health", "/healthz/ready"))[1]:
                        await asyncio.sleep(0.01)
                assert mesh.control.requests == []
        finally:
            await runner.cleanup()


def test_as_a_program_it_runs_until_sigterm(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as health:
        port = health.getsockname()[1]
        listening = [{"role": "health", "address": "127.0.0.1", "port": port, "fd": health.fileno()}]
        file = tmp_path / "bootstrap.json"
        file.write_bytes(orjson.dumps(bootstrap(xds=None, ca=None, snapshot=snapshot_file(tmp_path), sockets=listening)))
        command = [sys.executable, "-m", "devmesh.sidecar", file]
        process = subprocess.Popen(command, pass_fds=[health.fileno()], stderr=subprocess.PIPE, text=True)
    with process:
        for line in process.stderr:
            if "configuration v1 is in force" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
