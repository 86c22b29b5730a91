"""HTTPMatchRequest -> RouteMatch."""

from devmesh.compiler.route_match import catch_all, header, translate
from devmesh.config.istio_networking import HTTPMatchRequest, StringMatch


def test_no_match_is_everything():
    assert translate(None) == {"prefix": "/"}
    assert catch_all(None)
    assert catch_all(HTTPMatchRequest(uri=StringMatch(prefix="/")))


def test_anything_more_is_not_everything():
    assert not catch_all(HTTPMatchRequest(uri=StringMatch(prefix="/a")))
    assert not catch_all(HTTPMatchRequest(method=StringMatch(exact="GET")))


def test_an_empty_header_match_asks_for_presence():
    assert header("x-a", StringMatch()) == {"name": "x-a", "present_match": True}


def test_an_excluded_value_lets_a_missing_header_pass():
    found = header("x-a", StringMatch(exact="b"), inverted=True)
    assert found == {"name": "x-a", "string_match": {"exact": "b"}, "invert_match": True, "treat_missing_header_as_empty": True}


def test_case_may_be_ignored():
    assert translate(HTTPMatchRequest(uri=StringMatch(exact="/A"), ignore_uri_case=True)) == {"path": "/A", "case_sensitive": False}
