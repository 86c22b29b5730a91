"""Decisions in Envoy's order; the rows say what was observed on Envoy 1.40."""

import pytest

from devmesh.sidecar.config import WeightedCluster
from devmesh.sidecar.routing import (
    TLS_REDIRECT,
    cookie,
    needs_tls,
    query_value,
    redirect_location,
    rewrite_target,
    select_cluster,
    select_route,
    select_virtual_host,
    without_port,
)
from tests.sidecar.snapshots import head, host, parsed_route, parsed_table, route

HOSTS = [
    host(name="suffix", domains=("*.foo.com", "*oo.com")),
    host(name="longer", domains=("*.b.foo.com",)),
    host(name="prefix", domains=("api.*", "api.b.*")),
    host(name="middle", domains=("a*b",)),
    host(name="exact", domains=("x.foo.com", "reviews", "reviews:9080")),
]


AUTHORITIES = [
    ("reviews", "exact", "as written"),
    ("reviews:9080", "exact", "a port is part of it"),
    ("reviews:9081", "all", "another port is another host"),
    ("REVIEWS", "exact", "case does not count"),
    ("x.foo.com", "exact", "exact comes before wildcards"),
    ("y.foo.com", "suffix", "a suffix"),
    ("y.FOO.com", "suffix", "in any case"),
    (".foo.com", "suffix", "*oo.com: a wildcard stands for one character at least"),
    ("oo.com", "all", "so not for none"),
    ("q.b.foo.com", "longer", "the longest suffix wins"),
    ("api.x", "prefix", "a prefix"),
    ("api.b.c", "prefix", "the longest prefix wins"),
    ("api.", "all", "a wildcard stands for one character at least"),
    ("a*b", "middle", "a star in the middle is a star"),
    ("axb", "all", "and nothing else"),
    ("", "all", "no host"),
]


@pytest.mark.parametrize(("authority", "expected", "why"), AUTHORITIES)
def test_a_virtual_host_is_chosen(authority, expected, why):
    table = parsed_table(*HOSTS, host(name="all"))
    assert select_virtual_host(table, authority.encode()).name == expected, why


def test_without_a_host_for_everything_there_may_be_none():
    assert select_virtual_host(parsed_table(*HOSTS), b"nowhere") is None


def test_a_table_may_ignore_the_port():
    table = parsed_table(host(domains=("reviews",)), ignore_port_in_host_matching=True)
    assert select_virtual_host(table, b"reviews:1234") is not None
    assert select_virtual_host(table, b"reviews:") is not None, "whatever stands behind the colon"
    assert select_virtual_host(table, b"reviews:x") is not None
    assert select_virtual_host(parsed_table(host(domains=("reviews",))), b"reviews:1234") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"a:80", b"a"), (b"a", b"a"), (b"[::1]:80", b"[::1]"), (b"[::1]", b"[::1]"), (b"::1", b"::1"), (b"a:", b"a:"), (b"a:x", b"a:x")],
)
def test_a_port_is_taken_off(value, expected):
    assert without_port(value) == expected


def matched(match, request, chance=0.0):
    found = parsed_table(host(route(match, name="yes"), route(name="no"))).virtual_hosts[0]
    return select_route(found, request, chance).name == "yes"


def query(name, **matcher):
    return {"prefix": "/", "query_parameters": [{"name": name, **({"string_match": matcher} if matcher else {})}]}


def header(name, **matcher):
    return {"prefix": "/", "headers": [{"name": name, **matcher}]}


MATCHES = [
    ({"prefix": "/a"}, head("/a?x=/b"), True, "the query is no part of the path"),
    ({"path": "/a"}, head("/a?x=1"), True, "nor for an exact path"),
    ({"safe_regex": {"regex": "/a"}}, head("/a?x=1"), True, "nor for a regex"),
    (query("v", exact="a%20b"), head("/?v=a%20b"), True, "values are compared as they are written"),
    (query("v", exact="a b"), head("/?v=a%20b"), False, "and not decoded"),
    (query("v", exact="1"), head("/?v=1&v=2"), True, "the first of several counts"),
    (query("v", exact="1"), head("/?v=2&v=1"), False, "and only the first"),
    (query("v", exact=""), head("/?v"), True, "no value is an empty one"),
    (query("v"), head("/?v="), True, "present"),
    (query("v"), head("/"), False, "absent"),
    (query("k y"), head("/?k%20y=1"), False, "names are not decoded either"),
    (header("x-v", string_match={"exact": "a"}), head("/", ("x-v", "b"), ("x-v", "a")), True, "one of several values is enough"),
    (header("x-v", string_match={"exact": "a,b"}), head("/", ("x-v", "a"), ("x-v", "b")), False, "they are not joined"),
    (
        header("x-v", string_match={"exact": "a"}, invert_match=True),
        head("/", ("x-v", "b"), ("x-v", "c")),
        True,
        "inverted: none of them",
    ),
    (header("x-v", string_match={"exact": "a"}, invert_match=True), head("/", ("x-v", "b"), ("x-v", "a")), False, "so not if one does"),
    (header(":method", string_match={"exact": "POST"}), head("/", method="POST"), True, "the method"),
    (header(":authority", string_match={"exact": "h"}), head("/", authority="h"), True, "the authority"),
    (header(":path", string_match={"prefix": "/a?"}), head("/a?b=1"), True, "the path with its query"),
    (header(":scheme", string_match={"exact": "http"}), head("/"), True, "the scheme"),
    (header("host", string_match={"exact": "h"}), head("/", authority="h"), True, "host is the authority"),
    (
        {**header("x-a"), "query_parameters": [{"name": "q"}]},
        head("/", ("x-a", "1")),
        False,
        "all conditions must hold",
    ),
]


@pytest.mark.parametrize(("match", "request_head", "expected", "why"), MATCHES)
def test_a_route_matches(match, request_head, expected, why):
    assert matched(match, request_head) is expected, why


@pytest.mark.parametrize(("chance", "expected"), [(0.0, True), (0.2499, True), (0.25, False), (0.9, False)])
def test_a_share_of_the_requests_matches(chance, expected):
    assert matched({"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 25}}}, head(), chance) is expected


def test_the_first_route_that_matches_is_taken_and_there_may_be_none():
    found = parsed_table(host(route({"prefix": "/a"}, "first"), route({"prefix": "/a/b"}, "second"))).virtual_hosts[0]
    assert select_route(found, head("/a/b"), 0.0).name == "first"
    assert select_route(found, head("/c"), 0.0) is None


@pytest.mark.parametrize(
    ("weights", "chance", "expected", "why"),
    [
        ((90, 10), 0.0, "c0", "the first"),
        ((90, 10), 0.899, "c0", "up to its share"),
        ((90, 10), 0.9, "c1", "then the next"),
        ((0, 1), 0.0, "c1", "a weight of 0 gets nothing"),
        ((1, 1, 1), 0.999, "c2", "weights need not sum to 100"),
        ((0,), 0.5, "c0", "one cluster needs no weight"),
    ],
)
def test_a_cluster_is_chosen_by_weight(weights, chance, expected, why):
    action = parsed_route().action
    clusters = tuple(WeightedCluster(f"c{index}", weight) for index, weight in enumerate(weights))
    changed = type(action)(clusters, sum(weights), None)
    assert select_cluster(changed, chance).name == expected, why


def rewrite(pattern, text):
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": text}}


REWRITES = [
    ({"prefix": "/pf"}, {"prefix_rewrite": "/new"}, "/pfx/y?q=1", "/newx/y?q=1", "the prefix alone changes"),
    ({"path": "/pf"}, {"prefix_rewrite": "/new"}, "/pf?q=1", "/new?q=1", "an exact path changes whole"),
    ({"prefix": ""}, {"prefix_rewrite": "/new"}, "/a", "/new/a", "an empty prefix is put before"),
    ({"prefix": "/A", "case_sensitive": False}, {"prefix_rewrite": "/new"}, "/a/b", "/new/b", "in any case"),
    (
        {"safe_regex": {"regex": "/prx/.*"}},
        {"prefix_rewrite": "/whole"},
        "/prx/abc?d=1",
        "/whole?d=1",
        "a regex matched the whole path",
    ),
    ({"prefix": "/"}, rewrite(r"(\d+)", r"<\0-\1>"), "/re/12/34?x=5", "/re/<12-12>/<34-34>?x=5", "every match; the query stays"),
    ({"prefix": "/"}, rewrite("x*", "-"), "/rx/axxb", "-/-r-/-a-b-", "empty matches count, as RE2's GlobalReplace"),
    ({"prefix": "/"}, rewrite("^/service/([^/]+)(/.*)$", r"\2/\1"), "/service/foo/v1/api", "/v1/api/foo", "groups in any order"),
    ({"prefix": "/"}, {}, "/a?b", "/a?b", "nothing to rewrite"),
]


@pytest.mark.parametrize(("match", "action", "target", "expected", "why"), REWRITES)
def test_a_target_is_rewritten(match, action, target, expected, why):
    found = parsed_route(match=match, route={"cluster": "c", **action})
    assert rewrite_target(found.action, found, target.encode()) == expected.encode(), why


REDIRECTS = [
    ("red", {"https_redirect": True}, "https://red/a/x?q=1", "the scheme"),
    ("red:80", {"https_redirect": True}, "https://red/a/x?q=1", "http's default port goes with it"),
    ("red:443", {"https_redirect": True}, "https://red:443/a/x?q=1", "any other stays"),
    ("red:9080", {"scheme_redirect": "https"}, "https://red:9080/a/x?q=1", "any other stays"),
    ("red", {"host_redirect": "n:9"}, "http://n:9/a/x?q=1", "a host as it is written"),
    ("red:80", {"host_redirect": "new.x"}, "http://new.x/a/x?q=1", "with its port, or without"),
    ("red:80", {"port_redirect": 8443}, "http://red:8443/a/x?q=1", "a port for a port"),
    ("red", {"port_redirect": 80}, "http://red:80/a/x?q=1", "a default port is written too"),
    ("red", {"https_redirect": True, "port_redirect": 443}, "https://red:443/a/x?q=1", "a default port is written too"),
    (
        "red",
        {"host_redirect": "n:9", "port_redirect": 7},
        "http://n:9:7/a/x?q=1",
        "two ports are the user's mistake, kept as Envoy does",
    ),
    ("red", {"path_redirect": "/np"}, "http://red/np?q=1", "the query stays"),
    ("red", {"path_redirect": "/np?z=1"}, "http://red/np?z=1", "unless the path brings its own"),
    ("red", {"path_redirect": "/np?z=1", "strip_query": True}, "http://red/np?z=1", "which is not stripped"),
    ("red", {"path_redirect": "/n", "strip_query": True}, "http://red/n", "the request's is"),
    ("red", {"prefix_rewrite": "/np"}, "http://red/np/x?q=1", "the matched prefix"),
    ("red", {"regex_rewrite": {"pattern": {"regex": "^/a"}, "substitution": "/zz"}}, "http://red/zz/x?q=1", "a regex"),
    ("red", {"path_redirect": "np"}, "http://red/np?q=1", "a slash comes before what has none"),
    ("red", {"path_redirect": "?z=1"}, "http://red/?z=1", "a query of its own, too"),
    ("red", {"prefix_rewrite": "np"}, "http://red/np/x?q=1", "a prefix"),
    ("red", {"regex_rewrite": {"pattern": {"regex": "^/a"}, "substitution": "zz"}}, "http://red/zz/x?q=1", "and a regex's"),
    ("red", {"regex_rewrite": {"pattern": {"regex": "^.*$"}, "substitution": ""}}, "http://red/a/x?q=1", "of nothing, the old path stays"),
]


@pytest.mark.parametrize(("authority", "redirect", "expected", "why"), REDIRECTS)
def test_a_redirect_says_where_to(authority, redirect, expected, why):
    found = parsed_route(match={"prefix": "/a"}, redirect=redirect)
    assert redirect_location(found.action, found, head("/a/x?q=1", authority=authority)) == expected.encode(), why


def test_a_default_port_is_that_of_what_the_client_spoke():
    found = parsed_route(match={"prefix": "/"}, redirect={"https_redirect": True})
    assert redirect_location(found.action, found, head("/", ("x-forwarded-proto", "http"), authority="red:80")) == b"https://red/"
    assert redirect_location(found.action, found, head("/", ("x-forwarded-proto", "ftp"), authority="red:80")) == b"https://red:80/"


def test_a_prefix_redirect_of_a_regex_route_replaces_the_whole_path():
    found = parsed_route(match={"safe_regex": {"regex": "/rx/.*"}}, redirect={"prefix_rewrite": "/whole"})
    assert redirect_location(found.action, found, head("/rx/y?q=1", authority="red")) == b"http://red/whole?q=1"


@pytest.mark.parametrize(
    ("require_tls", "request_head", "expected", "why"),
    [
        ("ALL", head("/x"), True, "plain text"),
        ("ALL", head("/x", ("x-forwarded-proto", "https")), False, "TLS ended before us"),
        ("EXTERNAL_ONLY", head("/x"), True, "nobody is internal here"),
        ("NONE", head("/x"), False, "not asked for"),
    ],
)
def test_a_virtual_host_may_require_tls(require_tls, request_head, expected, why):
    assert needs_tls(parsed_table(host(require_tls=require_tls)).virtual_hosts[0], request_head) is expected, why


def test_a_request_without_tls_is_sent_to_https():
    assert redirect_location(TLS_REDIRECT, None, head("/x?q=1", authority="tls:80")) == b"https://tls/x?q=1"


@pytest.mark.parametrize(
    ("lines", "expected", "why"),
    [
        (["a=b; u=x; z=1"], b"x", "among others"),
        (['u="x"'], b"x", "quotes are not part of it"),
        (['u="'], b'"', "one quote is"),
        (["a=b", "u=x"], b"x", "in any cookie header"),
        (["u=x=y"], b"x=y", "a value may hold ="),
        (["u="], b"", "an empty one"),
        (["u"], None, "a name alone is no cookie"),
        (["xu=1"], None, "another name"),
        ([], None, "no cookies"),
    ],
)
def test_a_cookie_is_found(lines, expected, why):
    assert cookie([(b"cookie", line.encode()) for line in lines], b"u") == expected, why


def test_a_query_value_is_the_first_as_written():
    assert query_value(b"a=1&b=%20&b=2", b"b") == b"%20"
    assert query_value(b"", b"b") is None
