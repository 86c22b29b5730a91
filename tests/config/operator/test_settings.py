"""Profile, files and flags in istioctl's order; what of it a mesh is told; mistakes with their places."""

import pytest

from devmesh.config.operator.files import settings_of
from devmesh.config.operator.settings import choose, refuse_nothing
from devmesh.config.yaml import read_documents
from devmesh.errors import DevmeshError, UsageError


def file(text, name="a.yaml"):
    return settings_of(read_documents(text, name)[0][0])


def operator(spec):
    return file(f"apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {spec}\n")


def test_flags_lie_over_files_and_files_over_the_profile():
    files = [file("meshConfig: {accessLogEncoding: JSON}\npilot: {traceSampling: 7}\n"), file("pilot: {traceSampling: 8}\n")]
    assert choose("demo", files).mesh_config()["tracing_sampling"] == 8
    config = choose("demo", files, ["values.pilot.traceSampling=9"]).mesh_config()
    assert (config["tracing_sampling"], config["access_log_encoding"], config["access_log_file"]) == (9, "JSON", "/dev/stdout")


def test_the_proxys_own_sampling_wins_over_the_control_planes():
    assert choose("demo", (), ["meshConfig.defaultConfig.tracing.sampling=0"]).mesh_config()["tracing_sampling"] == 0


def test_a_users_values_win_over_the_operators_mesh_config():
    config = choose(None, [operator("{meshConfig: {connectTimeout: 1s}, values: {meshConfig: {connectTimeout: 1500ms}}}")]).mesh_config()
    assert config["connect_timeout"] == "1.500s"


@pytest.mark.parametrize(
    ("chosen", "files", "flags", "profile"),
    [
        (None, (), (), "demo"),
        ("default", (), (), "default"),
        (None, [operator("{profile: minimal}")], (), "minimal"),
        ("default", [operator("{profile: minimal}")], (), "default"),
        (None, [operator("{profile: minimal}")], ["profile=default"], "default"),
        (None, [file("profile: minimal\npilot: {}\n")], (), "minimal"),
        ("default", (), ["profile=default"], "default"),
    ],
)
def test_who_chooses_the_profile(chosen, files, flags, profile):
    choices = choose(chosen, files, flags)
    assert choices.profile == choices.spec["profile"] == profile


def test_a_profile_chosen_twice_and_differently_is_refused():
    with pytest.raises(UsageError, match="contradict"):
        choose("demo", (), ["profile=default"])


@pytest.mark.parametrize(
    ("flags", "ingress", "egress"),
    [
        (["components.egressGateways[0].enabled=true"], True, True),
        (["components.egressGateways[0].name=istio-egressgateway", "components.egressGateways[0].enabled=true"], True, True),
        (["components.ingressGateways[0].enabled=false"], False, False),
        (["components.ingressGateways[0].name=other"], False, False),
        (["values.gateways.istio-egressgateway.enabled=true"], True, True),
    ],
)
def test_a_list_of_gateways_takes_the_place_of_the_profiles(flags, ingress, egress):
    choices = choose("default", (), flags)
    assert (choices.ingress_gateway, choices.egress_gateway) == (ingress, egress)


def test_istios_own_words_for_the_addons_work_verbatim():
    assert choose(None, (), ["profile=demo", "addonComponents.grafana.enabled=true"]).addons == ("prometheus", "grafana")
    assert choose(None, (), ["addonComponents.prometheus.enabled=true"]).addons == ("prometheus",)


def test_grafana_brings_prometheus_and_says_so_where_it_was_switched_off():
    choices = choose(None, (), ["addonComponents.grafana.enabled=true", "addonComponents.prometheus.enabled=false"])
    assert choices.addons == ("prometheus", "grafana")
    assert "grafana shows what prometheus keeps" in choices.diagnostics[0].message


def test_a_remote_mesh_has_no_addons_of_its_own_and_says_so():
    choices = choose("remote", (), ["values.global.remotePilotAddress=../shop", "addonComponents.prometheus.enabled=true"])
    assert choices.addons == ()
    assert "addonComponents.prometheus has no effect here: the first mesh's serves a remote one too" in choices.diagnostics[0].message


def test_an_enum_may_be_given_by_its_number():
    config = choose(None, (), ["meshConfig.outboundTrafficPolicy.mode=0", "meshConfig.accessLogEncoding=1"]).mesh_config()
    assert (config["outbound_traffic_policy"], config["access_log_encoding"]) == ("REGISTRY_ONLY", "JSON")


def test_every_mistake_is_reported_with_its_place():
    with pytest.raises(DevmeshError) as caught:
        choose(None, [file("meshConfig:\n  accesLogFile: x\n  enableTracing: 3\n")], ["fo=1"])
    assert caught.value.message.splitlines() == [
        'a.yaml:2:3: error [IST0106] unknown field "meshConfig.accesLogFile"',
        "a.yaml:3:3: error [IST0106] meshConfig.enableTracing must be true or false, not 3",
        '--set fo: error [IST0106] unknown field "fo"',
    ]
    assert not isinstance(caught.value, UsageError)


def test_a_mistake_in_flags_alone_is_a_usage_error():
    with pytest.raises(UsageError, match="--set fo"):
        choose(None, (), ["fo=1"])


def test_what_does_nothing_here_is_named_with_its_place():
    (found,) = choose(None, [operator("\n  components:\n    pilot: {k8s: {replicaCount: 2}}")]).diagnostics
    assert str(found).startswith("a.yaml:5:19: warning [DM0007] components.pilot.k8s.replicaCount has no effect here")


def test_without_a_control_plane_there_is_nothing_to_bring_up():
    with pytest.raises(DevmeshError, match="no control plane"):
        refuse_nothing(choose("empty"))
    refuse_nothing(choose("empty", (), ["components.pilot.enabled=true"]))


def test_a_profile_that_is_not_supported_yet_says_so():
    with pytest.raises(DevmeshError, match="nothing says which") as caught:
        refuse_nothing(choose("remote"))
    assert "values.global.remotePilotAddress" in str(caught.value.hint)


def test_a_remote_mesh_is_told_whose_control_plane_it_joins_and_nobody_else_is():
    flag = ["values.global.remotePilotAddress=../shop"]
    chosen = choose("remote", flags=flag)
    refuse_nothing(chosen)
    assert (chosen.to_json()["remotePilotAddress"], chosen.diagnostics) == ("../shop", ())
    other = choose("demo", flags=flag)
    assert other.to_json()["remotePilotAddress"] == ""
    assert [one.message for one in other.diagnostics] == [
        "values.global.remotePilotAddress has no effect here: only profile remote joins another mesh"
    ]
