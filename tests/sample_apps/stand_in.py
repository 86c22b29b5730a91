"""Sample apps as processes, and a forward proxy in the mesh's place that knows their names, fails on request and keeps what it saw."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

ROOT = Path(__file__).parent.parent.parent / "sample-apps"


@dataclass
class App:
    process: asyncio.subprocess.Process
    url: str
    lines: list[str]
    reading: asyncio.Task[None]

    async def stop(self):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await self.reading
            return await self.process.wait()


async def start(sample, program, *, proxy="", name="", **environment):
    """Start an app on a free port; returns once it says that it listens."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env |= {
        "PORT": "0",
        "POD_NAME": name or program,
        "NO_PROXY": "127.0.0.1,localhost",
        **({"HTTP_PROXY": proxy} if proxy else {}),
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        f"{program}.py",
        cwd=ROOT / sample / "apps",
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    lines, listening = [], asyncio.Event()

    async def read():
        async for line in process.stdout:
            lines.append(line.decode().rstrip())
            listening.set()
        listening.set()

    app = App(process, "", lines, asyncio.create_task(read(), name=f"output of {program}"))
    async with asyncio.timeout(60):
        await listening.wait()
    if found := re.search(r"listens on (\S+)$", lines[0] if lines else ""):
        app.url = f"http://{found[1]}"
    return app


@dataclass
class Mesh:
    """`routes`: service -> app; `faults`: service -> the status answered in its place; `seen`: (service, path, headers) of each request."""

    routes: dict[str, App] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def headers(self, service):
        return [headers for name, _, headers in self.seen if name == service]

    async def _pass(self, request):
        target = URL(request.raw_path)
        service = target.host or ""
        self.seen.append((service, target.path, {name.lower(): value for name, value in request.headers.items()}))
        if service in self.faults:
            return web.Response(status=self.faults[service], text="fault filter abort")
        url = URL(self.routes[service].url).with_path(target.path).with_query(target.query)
        async with aiohttp.request(request.method, url, headers=request.headers, data=await request.read()) as response:
            return web.Response(status=response.status, body=await response.read(), content_type=response.content_type)

    @contextlib.asynccontextmanager
    async def serving(self):
        runner = web.ServerRunner(web.Server(self._pass))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await asyncio.gather(*(app.stop() for app in self.routes.values()))
            await runner.cleanup()


async def text(url, **options):
    async with aiohttp.request("GET", url, **options) as response:
        return response.status, await response.text()


async def json(url, **options):
    async with aiohttp.request("GET", url, **options) as response:
        return response.status, await response.json()
