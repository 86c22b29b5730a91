"""Our compiler gives what Istio's gives on random input, too. `DEVMESH_SEEDS=1000-2000` asks for others than the ones that CI asks for."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from devmesh.config.loader import load_text
from tests.square.compilers import RANDOM, RANDOM_WORKLOADS, WIDE, WIDE_CASES, WIDE_WORKLOADS, compiled, settings_of_mesh
from tests.square.random_inputs import Inputs
from tests.square.wide_inputs import Wide
from tests.support.draws import seeds

SEEDS = seeds("0-79")
WIDE_SEEDS = SEEDS if "DEVMESH_SEEDS" in os.environ else SEEDS[:20]


def alike(value: Any) -> Any:
    """Without what istiod itself has in another order each time, and with numbers as they compare."""
    if isinstance(value, list):
        return [alike(one) for one in value]
    if not isinstance(value, dict):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    out = {key: alike(one) for key, one in value.items()}
    if "query_parameters" in out:
        out["query_parameters"].sort(key=lambda one: one["name"])
    if out.get("name") == "virtualInbound" and "filter_chains" in out:  # the passthrough chains of ports that portLevelMtls names
        out["filter_chains"].sort(
            key=lambda one: (not one["name"].startswith("virtualInbound"), one["filter_chain_match"].get("destination_port", 0))
        )
    if out.get("name", "").startswith("0.0.0.0_") and "filter_chains" in out:  # services of one port that are told by SNI
        out["filter_chains"].sort(key=lambda one: one.get("filter_chain_match", {}).get("server_names", []))
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_input_is_compiled_as_istio_compiles_it(seed, istio, tmp_path):
    (file := tmp_path / "input.yaml").write_text(Inputs(seed).yaml())
    compare(istio, file, RANDOM, RANDOM_WORKLOADS)


@pytest.mark.parametrize("seed", WIDE_SEEDS)
def test_random_fields_are_compiled_as_istio_compiles_them(seed, istio, tmp_path):
    inputs = Wide(seed)
    (file := tmp_path / "input.yaml").write_text(inputs.yaml())
    (mesh := tmp_path / "mesh.yaml").write_text(json.dumps(inputs.mesh_config()))
    compare(istio, file, WIDE, WIDE_WORKLOADS, mesh)


@pytest.mark.parametrize("case", WIDE_CASES, ids=lambda case: case.stem)
def test_services_that_meet_are_compiled_as_istio_compiles_them(case, istio):
    compare(istio, case, WIDE, WIDE_WORKLOADS)


def compare(istio, file, topology, workloads, mesh=None):
    loaded = load_text(file.read_text(), file.name)
    assert [str(one) for one in loaded.errors] == []
    theirs = istio.asked([file], topology, workloads, mesh)
    mine = compiled(loaded.resources, topology, workloads, settings_of_mesh(mesh.read_text()) if mesh is not None else None)
    for workload, xds in theirs.items():
        for kind, resources in xds.items():
            assert alike(mine[workload][kind]) == alike(resources), (workload, kind)
