"""A mesh's settings, as a user gives them to `up`, lead to what Istio's compiler makes of the same MeshConfig."""

import pytest

from tests.square.compilers import CASES, MESH_CASE, MESH_CONFIGS, golden, ours, settings_of_mesh


def settings(mesh_config):
    return settings_of_mesh(mesh_config.read_text())


@pytest.mark.parametrize("mesh_config", MESH_CONFIGS, ids=lambda path: path.stem)
def test_settings_lead_to_what_istio_compiles(mesh_config):
    mine, theirs = ours(MESH_CASE, settings(mesh_config)), golden(mesh_config)
    for workload, xds in theirs.items():
        for kind, resources in xds.items():
            assert mine[workload][kind] == resources, (workload, kind)


@pytest.mark.parametrize("mesh_config", MESH_CONFIGS, ids=lambda path: path.stem)
def test_each_mesh_config_changes_something(mesh_config):
    assert golden(mesh_config) != golden(MESH_CASE)


@pytest.mark.parametrize("mesh_config", MESH_CONFIGS, ids=lambda path: path.stem)
def test_the_golden_files_are_what_istios_compiler_says_today(mesh_config, istio):
    assert istio(MESH_CASE, mesh_config) == golden(mesh_config)


@pytest.mark.parametrize("name", ["gateway-redirect-and-https", "gateway-passthrough-and-https", "gateway-tcp-weighted"])
def test_a_gateway_logs_where_istio_says(name, istio):
    (case,) = (one for one in CASES if one.stem[4:] == name)
    mesh_config = next(one for one in MESH_CONFIGS if one.stem == "mesh-access-log")
    theirs = istio(case, mesh_config)
    assert ours(case, settings(mesh_config)) == theirs
