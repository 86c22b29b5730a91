from devmesh.config.kinds import KINDS, find_kind, support_of


def test_what_would_be_unsafe_to_ignore_is_marked():
    unsafe = {one.kind for one in KINDS if one.support == "unsafe_to_ignore"}
    assert unsafe == {"AuthorizationPolicy", "RequestAuthentication", "TrafficTarget"}


def test_supported_kinds_have_models_and_the_others_none():
    assert all((one.model is not None) == (one.support == "full") for one in KINDS)


def test_one_kind_may_exist_in_two_groups():
    assert find_kind("networking.istio.io", "Gateway").support == "full"
    assert support_of("gateway.networking.k8s.io", "Gateway") == "not_yet"
    assert support_of("example.com", "Gateway") is None
