"""Registries as processes for tests: started on free ports, answered by a leader, stopped by pid."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from devmesh.registry.client import Registry
from devmesh.registry.consul import ConsulPorts, consul_command
from devmesh.runtimes.claims import PortClaims

TOKEN = "b1b1b1b1-0000-4000-8000-000000000001"
EMBEDDED = """
import asyncio, socket, sys
from pathlib import Path
from devmesh.registry.embedded.server import serve
sock = socket.socket(fileno=int(sys.argv[1]))
asyncio.run(serve(sock, Path(sys.argv[2]), sys.argv[3], lambda: None))
"""


class RegistryProcess:
    """One registry that can be killed and started again on the same port and directory; `ports` are its own meanwhile."""

    def __init__(self, directory: Path, binary: Path | None, ports: PortClaims) -> None:
        self.directory = directory
        self._binary = binary
        self._ports = [ports.prefer(0) for _ in range(3)]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    async def start(self) -> None:
        self._process = self._embedded() if self._binary is None else self._consul(self._binary)
        async with Registry(self.url, TOKEN) as registry:
            await registry.wait_leader(within=30)

    def _embedded(self) -> subprocess.Popen[bytes]:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self._ports[0]))
            sock.listen(128)
            number = sock.fileno()
            return subprocess.Popen([sys.executable, "-c", EMBEDDED, str(number), str(self.directory), TOKEN], pass_fds=[number])

    def _consul(self, binary: Path) -> subprocess.Popen[bytes]:
        ports = ConsulPorts(http=self._ports[0], server=self._ports[1], serf_lan=self._ports[2])
        command = consul_command(binary, self.directory, ports, TOKEN)
        return subprocess.Popen(command.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
            self._process.wait(60)

    @property
    def status(self) -> int | None:
        return self._process.poll() if self._process else None

    async def restart(self) -> None:
        await asyncio.to_thread(self.kill)
        await self.start()


@contextlib.asynccontextmanager
async def running(directory: Path, binary: Path | None = None) -> AsyncIterator[RegistryProcess]:
    with PortClaims() as ports:
        process = RegistryProcess(directory, binary, ports)
        try:
            await process.start()
            yield process
        finally:
            process.kill()
