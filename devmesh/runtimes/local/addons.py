"""Prometheus and Grafana as processes of this machine, from the binaries on PATH."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from devmesh.errors import DevmeshError
from devmesh.runtimes.addons import (
    GRAFANA,
    GRAFANA_SETTINGS,
    PORTS,
    PROMETHEUS,
    READY,
    RETENTION,
    Target,
    control_plane,
    write_grafana,
    write_prometheus,
)
from devmesh.runtimes.claims import claim_usual_port
from devmesh.runtimes.files import last_lines
from devmesh.runtimes.local.plan import WorkloadPlan
from devmesh.runtimes.waiting import LOOK_AGAIN_SECONDS

BINARIES: Mapping[str, tuple[str, ...]] = {PROMETHEUS: ("prometheus",), GRAFANA: ("grafana", "grafana-server")}
HINTS: Mapping[str, str] = {
    PROMETHEUS: "apt-get install prometheus (Debian, Ubuntu), or use a Docker engine: devmesh up --runtime docker",
    GRAFANA: "put grafana's bin folder on PATH, or use a Docker engine: devmesh up --runtime docker",
}
PACKAGED_HOME = Path("/usr/share/grafana")
Which = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Addon:
    """`folder` holds its settings and its data; `held` keeps a claimed port from others."""

    name: str
    binary: Path
    folder: Path
    port: int
    held: socket.socket

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{READY[self.name]}"


def find(names: Iterable[str], which: Which = shutil.which) -> dict[str, Path]:
    """The binary of each. Raises DevmeshError naming the first that is missing, and where it comes from."""
    found = {}
    for name in names:
        binary = next((path for command in BINARIES[name] if (path := which(command)) is not None), None)
        if binary is None:
            raise DevmeshError(f"addon {name}: there is no {' or '.join(BINARIES[name])} on PATH", HINTS[name])
        found[name] = Path(binary)
    return found


ANSWER_TIMEOUT = aiohttp.ClientTimeout(total=1)  # whoever else has its port by now may never answer


def plan_addons(binaries: Mapping[str, Path], root: Path) -> dict[str, Addon]:
    """Each with its usual port, or one of its own when that is taken."""
    return {name: Addon(name, binary, root / name, *claim_usual_port(PORTS[name])) for name, binary in binaries.items()}


def write_settings(addons: Mapping[str, Addon], plans: Mapping[str, WorkloadPlan], control_port: int) -> None:
    """Called again with whatever workloads there are then: Prometheus notices."""
    if (prometheus := addons.get(PROMETHEUS)) is not None:
        control = control_plane(f"127.0.0.1:{control_port}")
        write_prometheus(prometheus.folder, str(prometheus.folder), targets(plans), control)
        if (grafana := addons.get(GRAFANA)) is not None:
            write_grafana(grafana.folder, str(grafana.folder), f"http://127.0.0.1:{prometheus.port}")


def targets(plans: Mapping[str, WorkloadPlan]) -> list[Target]:
    return [
        Target.of(plan.workload, f"127.0.0.1:{face.port}") for plan in plans.values() if (face := plan.socket("prometheus")) is not None
    ]


def command(addon: Addon) -> list[str]:
    """All on loopback; data beside the settings, gone with `down --volumes`."""
    if addon.name == PROMETHEUS:
        return [
            str(addon.binary),
            f"--config.file={addon.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={addon.folder / 'data'}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address=127.0.0.1:{addon.port}",
        ]
    server = ["server"] if addon.binary.name == "grafana" else []
    return [str(addon.binary), *server, "--homepath", str(_home(addon.binary))]


def _home(binary: Path) -> Path:
    """Where Grafana's own pages are: beside `bin` in its archive, elsewhere in its package."""
    beside = binary.resolve().parent.parent
    return beside if (beside / "public").is_dir() else PACKAGED_HOME


def environment(addon: Addon, base: Mapping[str, str]) -> dict[str, str]:
    """Grafana's settings are variables; Prometheus has none."""
    if addon.name == PROMETHEUS:
        return dict(base)
    return {
        **base,
        **GRAFANA_SETTINGS,
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(addon.port),
        "GF_PATHS_DATA": str(addon.folder / "data"),
        "GF_PATHS_PLUGINS": str(addon.folder / "plugins"),
        "GF_PATHS_PROVISIONING": str(addon.folder / "provisioning"),
    }


async def all_answer(addons: Mapping[str, Addon], is_lost: Callable[[str], bool], log: Callable[[str], Path]) -> None:
    """Return when each is ready. Raises DevmeshError for one that ends again and again, or says nothing in time."""
    async with aiohttp.ClientSession() as session:
        for name, one in addons.items():
            while not await answers(session, one):
                if is_lost(name):
                    last = "\n".join(last_lines(log(name)))
                    raise DevmeshError(f"addon {name} does not become ready; its last lines:\n{last}", f"see {log(name)}")
                await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def answers(session: aiohttp.ClientSession, addon: Addon) -> bool:
    try:
        async with session.get(addon.ready_url, timeout=ANSWER_TIMEOUT) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
