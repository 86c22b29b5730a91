"""Profiles as Istio means them."""

import pytest

from devmesh.config.operator.profiles import PROFILES, profile
from devmesh.config.operator.settings import choose
from devmesh.errors import UsageError


@pytest.mark.parametrize(
    ("name", "ingress", "egress", "sampling", "access_log"),
    [
        ("default", True, False, 1.0, ""),
        ("demo", True, True, 100.0, "/dev/stdout"),
        ("minimal", False, False, 1.0, ""),
        ("remote", False, False, 1.0, ""),
        ("empty", False, False, 1.0, ""),
    ],
)
def test_what_a_profile_switches_on(name, ingress, egress, sampling, access_log):
    choices = choose(name)
    assert (choices.ingress_gateway, choices.egress_gateway) == (ingress, egress)
    config = choices.mesh_config()
    assert (config["tracing_sampling"], config["access_log_file"]) == (sampling, access_log)
    assert choices.addons == ()
    assert choices.diagnostics == ()


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_an_istio_operator_that_names_itself(name):
    document = profile(name)
    assert (document["apiVersion"], document["kind"], document["spec"]["profile"]) == ("install.istio.io/v1alpha1", "IstioOperator", name)


def test_an_unknown_profile_is_a_usage_error_that_names_the_near_one():
    with pytest.raises(UsageError, match="no profile 'demmo'") as caught:
        profile("demmo")
    assert caught.value.hint == 'did you mean "demo"?'
