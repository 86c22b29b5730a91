from devmesh.config.model import Diagnostic, ObjectMeta, Resource, ResourceKey, SourcePosition


def resource(lines):
    key = ResourceKey("networking.istio.io", "VirtualService", "default", "reviews")
    return Resource(key, "networking.istio.io/v1", ObjectMeta("reviews", "default"), None, {}, "mesh.yaml", lines)


def test_a_position_shows_only_what_is_known():
    assert str(SourcePosition("a.yaml", 3, 7)) == "a.yaml:3:7"
    assert str(SourcePosition("a.yaml", 3)) == "a.yaml:3"
    assert str(SourcePosition("-")) == "-"


def test_an_unknown_path_takes_the_closest_enclosing_place():
    found = resource({"": 1, "spec": 5, "spec.http[0]": 7, "spec.http[0].match[1].headers.a.b": 9})
    assert found.position("spec.http[0].match[1].uri.exact").line == 7
    assert found.position("spec.http[0].match[1].headers.a.b").line == 9
    assert found.position("spec.http[3]").line == 5
    assert found.position("metadata.name").line == 1
    assert found.position("").line == 1


def test_a_diagnostic_reads_as_a_compilers_line():
    diagnostic = Diagnostic("error", "IST0101", SourcePosition("a.yaml", 3, 7), "no such host", "hint")
    assert str(diagnostic) == "a.yaml:3:7: error [IST0101] no such host"
    assert diagnostic.to_json()["line"] == 3
