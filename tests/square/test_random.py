"""Our compiler gives what Istio's gives on random input, too. `DEVMESH_SEEDS=1000-2000` asks for others than the ones that CI asks for."""

from __future__ import annotations

import os
from typing import Any

import pytest

from devmesh.config.loader import load_text
from tests.square.compilers import RANDOM, RANDOM_WORKLOADS, compiled
from tests.square.random_inputs import Inputs

FIRST, _, LAST = os.environ.get("DEVMESH_SEEDS", "0-79").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)


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
    text = Inputs(seed).yaml()
    (file := tmp_path / "input.yaml").write_text(text)
    loaded = load_text(text, file.name)
    assert [str(one) for one in loaded.errors] == []
    theirs = istio.asked([file], RANDOM, RANDOM_WORKLOADS)
    mine = compiled(loaded.resources, RANDOM, RANDOM_WORKLOADS)
    for workload, xds in theirs.items():
        for kind, resources in xds.items():
            assert alike(mine[workload][kind]) == alike(resources), (workload, kind)
