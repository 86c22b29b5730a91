"""What a connection to an app costs when its pod's init makes it and passes it out, against a direct connect in the same run.

`python -m tests.bench.passing`: microseconds for each way, then one JSON line with the ratios. Asked alone and sixteen at a time, since
requests of one moment share a datagram.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.pods.harness import OnePod, one_pod

ROUNDS, CONNECTIONS, TOGETHER = 7, 480, 16
APP = """
import socket
listener = socket.create_server(("0.0.0.0", 9080), backlog=4096)
while True:
    listener.accept()[0].close()
"""


async def direct(port: int) -> None:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    sock.close()


async def alone(connect: Callable[[], Awaitable[None]]) -> float:
    """Microseconds a connection."""
    started = time.perf_counter()
    for _ in range(CONNECTIONS):
        await connect()
    return (time.perf_counter() - started) / CONNECTIONS * 1e6


async def together(connect: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    for _ in range(CONNECTIONS // TOGETHER):
        await asyncio.gather(*(connect() for _ in range(TOGETHER)))
    return (time.perf_counter() - started) / CONNECTIONS * 1e6


async def measure(pod: OnePod) -> dict[str, float]:
    """Medians over interleaved rounds."""
    pod.start(APP, ports=(9080,))
    await pod.event("listening")
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(
            APP.replace('("0.0.0.0", 9080)', '("127.0.0.1", 0)').replace("while", "print(listener.getsockname()[1], flush=True)\nwhile")
        )
        script.flush()
        outside = await asyncio.create_subprocess_exec(sys.executable, script.name, stdout=asyncio.subprocess.PIPE)
        assert outside.stdout is not None
        port = int(await outside.stdout.readline())
        connector = pod.connector()

        async def passed() -> None:
            (await connector.connect(9080)).close()

        times: dict[str, list[float]] = {"direct": [], "passed": [], "direct, 16 at a time": [], "passed, 16 at a time": []}
        for _ in range(ROUNDS):
            times["direct"].append(await alone(lambda: direct(port)))
            times["passed"].append(await alone(passed))
            times["direct, 16 at a time"].append(await together(lambda: direct(port)))
            times["passed, 16 at a time"].append(await together(passed))
        connector.close()
        outside.terminate()
        await outside.wait()
    return {name: statistics.median(found) for name, found in times.items()}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with one_pod(Path(folder)) as pod:
            found = await measure(pod)
    for name, microseconds in found.items():
        print(f"{name:24} {microseconds:7.0f} us")
    ratios = {
        "passed": found["passed"] / found["direct"],
        "passed_together": found["passed, 16 at a time"] / found["direct, 16 at a time"],
    }
    print(json.dumps({"ratios": {name: round(value, 2) for name, value in ratios.items()}}))


if __name__ == "__main__":
    asyncio.run(main())
