"""Parameters of both APIs, and what is said about bad ones."""

import pytest
from multidict import MultiDict

from devmesh.collector.parameters import BadQueryError, parse_dependencies, parse_query, parse_v1, trace_id
from devmesh.collector.store import Query

SECOND = 10**9
NOW = 1_000_000 * SECOND


@pytest.mark.parametrize("name", ["query.start_time_min", "query.startTimeMin"])
@pytest.mark.parametrize("text", ["1970-01-01T00:00:01.5Z", "1970-01-01T01:00:01.500000+01:00", "1970-01-01T01:00:01.5 01:00"])
def test_times(name, text):
    assert parse_query({name: text}).start_min == 1_500_000_000


@pytest.mark.parametrize(
    ("text", "expected"), [("1.5s", 1_500_000_000), ("1m30s", 90_000_000_000), ("250ms", 250_000_000), ("10us", 10_000)]
)
def test_durations(text, expected):
    assert parse_query({"query.duration_min": text}).duration_min == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("start_time_min", "x"),
        ("duration_min", "5"),
        ("duration_max", "s"),
        ("attributes", "x"),
        ("attributes", "[]"),
        ("search_depth", "0"),
    ],
)
def test_bad_parameters(name, text):
    with pytest.raises(BadQueryError, match=name):
        parse_query({f"query.{name}": text})


def v1(*given):
    return parse_v1(MultiDict([("service", "front"), *given]), NOW)


def test_v1_defaults_are_jaegers():
    assert v1() == Query(service="front", start_min=NOW - 48 * 3600 * SECOND, start_max=NOW, limit=100)


def test_v1_times_are_microseconds_and_durations_gos():
    found = v1(
        ("start", "1500000"), ("end", "2500000"), ("minDuration", "1.5s"), ("maxDuration", "1m"), ("limit", "7"), ("operation", "GET /")
    )
    assert (found.start_min, found.start_max, found.duration_min, found.duration_max) == (
        1_500_000_000,
        2_500_000_000,
        1_500_000_000,
        60 * SECOND,
    )
    assert (found.limit, found.operation) == (7, "GET /")


def test_v1_tags_come_in_two_forms_any_number_of_times():
    found = v1(("tag", "a:1"), ("tag", "url:http://x"), ("tags", '{"b":"2"}'), ("tags", '{"c":"3"}'))
    assert found.attributes == {"a": "1", "url": "http://x", "b": "2", "c": "3"}


def test_v1_asks_no_more_than_the_store_may_give():
    assert v1(("limit", "100000")).limit == 5_000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("start", "x", "unable to parse param 'start'"),
        ("end", "1.5", "unable to parse param 'end'"),
        ("limit", "x", "limit"),
        ("limit", "0", "search depth"),
        ("minDuration", "5", "minDuration"),
        ("tag", "novalue", "expecting key:value, received: novalue"),
        ("tags", "{", "malformed parameter tags"),
        ("tags", '{"a":1}', "a JSON object of strings"),
    ],
)
def test_v1_bad_parameters(name, text, message):
    with pytest.raises(BadQueryError, match=message):
        v1((name, text))


def test_v1_refuses_what_cannot_be_found():
    with pytest.raises(BadQueryError, match="'service' is required"):
        parse_v1(MultiDict(), NOW)
    with pytest.raises(BadQueryError, match="'maxDuration' should be greater than 'minDuration'"):
        v1(("minDuration", "2s"), ("maxDuration", "1s"))


def test_dependencies_are_of_a_day_unless_told():
    assert parse_dependencies(MultiDict(), NOW) == (NOW - 24 * 3600 * SECOND, NOW)
    assert parse_dependencies(MultiDict(endTs="5000", lookback="2000"), NOW) == (3 * SECOND, 5 * SECOND)


def test_a_trace_id_is_filled_up():
    assert trace_id("AB") == "ab".zfill(32)
    with pytest.raises(BadQueryError, match="not hexadecimal"):
        trace_id("zz")
