"""What a compile sees."""

from devmesh.compiler import MeshSettings
from devmesh.compiler.world import World, matches, per_world
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


def test_an_answer_is_found_once_in_a_world_and_anew_in_the_next():
    asked = []

    @per_world
    def endpoints(world: World, prefix: str, chosen: tuple[int, ...]) -> list[str]:
        asked.append(prefix)
        return sorted(f"{prefix}{name}" for name in world.ready)

    first = world()
    assert endpoints(first, "x", (1,)) is endpoints(first, "x", (1,))
    assert asked == ["x"]
    endpoints(first, "x", (2,))
    endpoints(first, "y", (1,))
    assert asked == ["x", "x", "y"]
    assert endpoints(first.with_endpoints(["api-v1"]), "x", (1,)) == ["xapi-v1"]


def test_objects_that_are_made_for_one_question_are_never_taken_for_another():
    @per_world
    def size(world: World, given: list[int]) -> int:
        return len(given)

    here = world()
    assert [size(here, [0] * count) for count in range(20)] == list(range(20))
