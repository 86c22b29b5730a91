"""What a compile sees."""

from devmesh.compiler import MeshSettings
from devmesh.compiler.world import matches
from devmesh.config.names import expand_host, host_matches
from tests.compiler.worlds import world


def test_every_workload_is_ready_unless_told():
    assert world().ready == {"web-v1", "api-v1", "api-v2", "gate-v1"}
    assert world(endpoints=["api-v1"]).ready == {"api-v1"}
    assert world().with_endpoints([]).ready == frozenset()


def test_an_empty_selector_selects_nothing():
    assert not matches({}, {"app": "api"})
    assert matches({"app": "api"}, {"app": "api", "version": "v1"})


def test_only_a_short_name_gets_the_namespace():
    assert expand_host("api", "shop") == "api.shop.svc.cluster.local"
    assert expand_host("api.example", "shop") == "api.example"
    assert expand_host("*", "shop") == "*"


def test_a_wildcard_covers_what_ends_like_it():
    assert host_matches("*.example", "a.example")
    assert not host_matches("*.example", "example")
    assert not host_matches("a.example", "b.example")


def test_settings_ignore_what_another_version_wrote():
    assert MeshSettings.from_json({"tracing_sampling": 100.0, "unknown": 1}).tracing_sampling == 100.0
