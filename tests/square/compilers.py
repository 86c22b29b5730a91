"""The columns of the square: our compiler and Istio's, over one topology and one YAML."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from devmesh.compiler import MeshSettings, World, compile_proxy
from devmesh.config.loader import load_text
from devmesh.config.model import Resource
from devmesh.config.operator.files import settings_of
from devmesh.config.operator.settings import choose
from devmesh.config.topology import Topology
from devmesh.config.yaml import read_documents
from tests.square.normalise import normalise

HERE = Path(__file__).parent
CASES = sorted(path for path in (HERE / "cases").glob("*.yaml") if not path.name.endswith(".requests.yaml"))
TOPOLOGY = HERE / "topology.json"
# And services of several ports, of every protocol, and of another namespace.
RANDOM = HERE / "topology-random.json"
RANDOM_WORKLOADS = ("productpage-v1", "reviews-v1", "httpbin-v1", "store-v1", "multi-v1", "far-v1", "istio-ingressgateway")
# And services that meet: at one port with other protocols, on one workload, of one name in two namespaces.
WIDE = HERE / "topology-wide.json"
WIDE_WORKLOADS = (*RANDOM_WORKLOADS, "legacy-v1", "reviews-o1")
WIDE_CASES = sorted((HERE / "wide_cases").glob("*.yaml"))
WITH_EGRESS = HERE / "topology-egress.json"  # and an egress gateway, for the cases that speak of one
# MeshConfigs, each compiled with this input, whose routes and clusters they change.
MESH_CONFIGS = sorted((HERE / "mesh_configs").glob("*.yaml"))
MESH_CASE = HERE / "cases" / "104-timeout-and-retries.yaml"
# A caller, a callee and the gateway see every kind of configuration that these cases make.
WORKLOADS = ("productpage-v1", "reviews-v1", "httpbin-v1", "istio-ingressgateway")


def speaks_of(case: Path, kind: str) -> bool:
    return f"kind: {kind}\n" in case.read_text()


def has_egress(case: Path) -> bool:
    return "istio-egressgateway" in case.read_text()


def workloads(case: Path) -> tuple[str, ...]:
    return (*WORKLOADS, "istio-egressgateway") if has_egress(case) else WORKLOADS


def topology_file(case: Path) -> Path:
    return WITH_EGRESS if has_egress(case) else TOPOLOGY


def topology(file: Path = TOPOLOGY) -> Topology:
    value = json.loads(file.read_text())
    for service in value["services"]:
        for port in service["ports"]:
            port.setdefault("targetPort", port["port"])
    return Topology.from_json(value)


def ours(case: Path, settings: MeshSettings | None = None) -> dict[str, Any]:
    loaded = load_text(case.read_text(), case.name)
    assert not loaded.errors, [str(one) for one in loaded.errors]
    return compiled(loaded.resources, topology_file(case), workloads(case), settings)


def compiled(resources: Iterable[Resource], file: Path, names: Iterable[str], settings: MeshSettings | None = None) -> dict[str, Any]:
    world = World.from_topology(topology(file), resources, settings)
    return {name: normalise(compile_proxy(world, name).snapshot.to_json()) for name in names}


class Istio:
    """Istio's compiler in one process for many inputs: most of what a process of its own would cost is its start."""

    def __init__(self, oracle: Path) -> None:
        environment = {**os.environ, "GOGC": "400"}  # memory is there, and collecting it costs as much as compiling
        self._process = subprocess.Popen(
            [oracle, "-batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )

    def __call__(self, case: Path, mesh: Path | None = None) -> dict[str, Any]:
        """`mesh` holds a MeshConfig over Istio's defaults."""
        return self.asked([case], topology_file(case), workloads(case), mesh)

    def asked(self, files: Sequence[Path], topology: Path, names: Sequence[str], mesh: Path | None = None) -> dict[str, Any]:
        asked = {"topology": str(topology), "mesh": str(mesh or ""), "files": [str(one) for one in files], "for": names}
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"{asked}: {process.stderr.read().decode()}"
        found = json.loads(answer)
        assert "error" not in found, f"{asked}: {found['error']}"
        return {name: normalise(xds) for name, xds in found.items()}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def settings_of_mesh(mesh_config: str) -> MeshSettings:
    """A MeshConfig as `-f values.yaml` gives it, and as the control plane reads it."""
    text = "meshConfig:\n" + "".join(f"  {line}\n" for line in mesh_config.splitlines())
    choices = choose("default", [settings_of(read_documents(text, "values.yaml")[0][0])])
    assert [one for one in choices.diagnostics if one.severity == "error"] == []
    return MeshSettings.from_json(choices.mesh_config())


def golden_file(case: Path) -> Path:
    return HERE / "golden" / f"{case.stem}.json.gz"


def golden(case: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(gzip.decompress(golden_file(case).read_bytes()))
    return value


def write_golden(case: Path, value: dict[str, Any]) -> None:
    golden_file(case).write_bytes(gzip.compress(json.dumps(value, sort_keys=True).encode(), 9, mtime=0))
