"""Which endpoint gets a request. The strings of digits are what a live Envoy 1.40 chose for key0..key23."""

import random
from collections import Counter

import pytest

from devmesh.sidecar.balancing import Balancer, Hash, build_maglev, build_ring, key_of, priority_loads, request_hash
from devmesh.sidecar.config import Cluster, Endpoint, HashPolicy
from tests.sidecar.snapshots import head

HOSTS = (("127.9.9.1", 9001), ("127.9.9.2", 9002), ("127.9.9.3", 9003))
EQUAL = tuple(Endpoint(*host) for host in HOSTS)
WEIGHTED = tuple(Endpoint(*host, weight=weight) for host, weight in zip(HOSTS, (1, 2, 5), strict=True))
KEYS = [f"key{number}" for number in range(24)]
HEADER = (HashPolicy("header", b"x-k"),)


def rng():
    return random.Random(7)


def idle(_key):
    return 0


def chosen(balancer, request, policies=HEADER):
    value = request_hash(policies, request, "127.0.0.1", rng()).value
    return balancer.choose(value, idle, rng()).address[-1]


def by_header(key):
    return head("/x", ("x-k", key), ("x-j", "j" + key))


TABLES = [
    (Cluster("c", "STATIC", "RING_HASH", EQUAL), "223212332131312313331121", "a ring"),
    (Cluster("c", "STATIC", "RING_HASH", WEIGHTED), "333333332331312313331322", "a ring with weights"),
    (Cluster("c", "STATIC", "RING_HASH", WEIGHTED, ring_hash=(8, 100)), "322332322233233233323333", "a small ring"),
    (Cluster("c", "STATIC", "MAGLEV", EQUAL), "313323211222321232322322", "Maglev"),
    (Cluster("c", "STATIC", "MAGLEV", WEIGHTED), "333333213232321333323323", "Maglev with weights"),
    (Cluster("c", "STATIC", "MAGLEV", WEIGHTED, maglev_table_size=251), "323333332333333323323333", "a small table"),
]


@pytest.mark.parametrize(("cluster", "expected", "why"), TABLES)
def test_a_key_goes_where_envoy_sends_it(cluster, expected, why):
    balancer = Balancer(cluster)
    assert "".join(chosen(balancer, by_header(key)) for key in KEYS) == expected, why


SECOND = HashPolicy("header", b"x-j")
RING = "223212332131312313331121"


HASHES = [
    ((*HEADER, SECOND), by_header, "311331313132333333333131", "two hashes are combined"),
    ((HashPolicy("header", b"x-k", terminal=True), SECOND), by_header, RING, "a terminal one ends it"),
    ((*HEADER, HashPolicy("header", b"none", terminal=True), SECOND), by_header, RING, "also when an earlier one made the hash"),
    (
        HEADER,
        lambda key: head("/", ("x-k", "b" + key), ("x-k", "a" + key)),
        "221312331311222113321121",
        "several values count, in their own order",
    ),
    ((HashPolicy("query", b"k"),), lambda key: head(f"/?k={key}"), RING, "a query parameter"),
    ((HashPolicy("query", b"k"),), lambda key: head(f"/?k=a%20{key}"), "323221222332212113311122", "as it is written"),
    ((HashPolicy("header", b":path"),), lambda key: head(f"/path/{key}"), "233133112232122132131211", "the path"),
    ((HashPolicy("header", b":authority"),), lambda key: head("/", authority=key), RING, "the authority"),
    ((HashPolicy("header", b"host"),), lambda key: head("/", authority=key), RING, "by its other name"),
    ((HashPolicy("cookie", b"u"),), lambda key: head("/", ("cookie", f"a=b; u={key}; z=1")), RING, "a cookie"),
    ((HashPolicy("cookie", b"u"),), lambda key: head("/", ("cookie", f'a=b; u="{key}"')), RING, "without its quotes"),
    ((HashPolicy("cookie", b"u"),), lambda key: head("/", ("cookie", "a=b"), ("cookie", f"u={key}")), RING, "in any header"),
    ((HashPolicy("source_ip", b""),), lambda _: head("/"), "1" * 24, "the caller's address"),
]


@pytest.mark.parametrize(("policies", "request_of", "expected", "why"), HASHES)
def test_a_hash_is_made_of_what_the_policies_name(policies, request_of, expected, why):
    balancer = Balancer(Cluster("c", "STATIC", "RING_HASH", EQUAL))
    assert "".join(chosen(balancer, request_of(key), policies) for key in KEYS) == expected, why


def test_a_retry_takes_the_rings_next_host_that_was_not_tried():
    balancer = Balancer(Cluster("c", "STATIC", "RING_HASH", EQUAL))
    third = ""
    for key in KEYS:
        value = request_hash(HEADER, by_header(key), "", rng()).value
        tried = frozenset()
        for _ in range(3):
            found = balancer.choose(value, idle, rng(), tried, 5)
            tried |= {key_of(found)}
        third += found.address[-1]
    assert third == "132221323213233322212313"


def test_a_maglev_retry_leaves_the_hosts_that_were_tried():
    balancer = Balancer(Cluster("c", "STATIC", "MAGLEV", EQUAL))
    for key in KEYS:
        value = request_hash(HEADER, by_header(key), "", rng()).value
        first = balancer.choose(value, idle, rng())
        assert balancer.choose(value, idle, rng(), frozenset({key_of(first)}), 5) != first


@pytest.mark.parametrize(
    ("policy", "expected", "why"),
    [
        (HashPolicy("cookie", b"u", 60.0), b'u="%016x"; Max-Age=60; HttpOnly', "with a lifetime"),
        (HashPolicy("cookie", b"u", 0.0), b'u="%016x"; HttpOnly', "for the session"),
        (
            HashPolicy("cookie", b"u", 60.0, b"/p", cookie_attributes=b"; SameSite=Strict; Secure"),
            b'u="%016x"; Max-Age=60; Path=/p; SameSite=Strict; Secure; HttpOnly',
            "with everything, in Envoy's order",
        ),
    ],
)
def test_a_cookie_is_made_when_there_is_none(policy, expected, why):
    made = request_hash((policy,), head("/"), "", rng())
    assert made.set_cookie == expected % rng().getrandbits(64), why
    value = made.set_cookie.split(b'"')[1].decode()
    assert request_hash((policy,), head("/", ("cookie", f"u={value}")), "", rng()) == Hash(made.value), "which then is the key"


def test_without_anything_to_hash_there_is_no_hash():
    policies = (HashPolicy("cookie", b"u"), HashPolicy("header", b"x"), HashPolicy("query", b"q"))
    assert request_hash(policies, head("/"), "", rng()) == Hash(None)
    assert Balancer(Cluster("c", "STATIC", "RING_HASH", EQUAL)).choose(None, idle, rng()) in EQUAL


def picks(balancer, count, active=idle):
    chance = rng()
    return Counter(balancer.choose(None, active, chance).address[-1] for _ in range(count))


@pytest.mark.parametrize(
    ("policy", "endpoints", "expected", "why"),
    [
        ("ROUND_ROBIN", EQUAL, {"1": 800, "2": 800, "3": 800}, "each in turn"),
        ("ROUND_ROBIN", WEIGHTED, {"1": 300, "2": 600, "3": 1500}, "exactly by weight"),
        ("RANDOM", EQUAL, {"1": 800, "2": 800, "3": 800}, "about alike"),
        ("RANDOM", WEIGHTED, {"1": 800, "2": 800, "3": 800}, "weights do not count (observed)"),
        ("LEAST_REQUEST", EQUAL, {"1": 800, "2": 800, "3": 800}, "about alike when nothing is under way"),
        ("LEAST_REQUEST", WEIGHTED, {"1": 300, "2": 600, "3": 1500}, "about by weight when nothing is under way"),
    ],
)
def test_requests_are_shared_out(policy, endpoints, expected, why):
    got = picks(Balancer(Cluster("c", "STATIC", policy, endpoints)), 2400)
    tolerance = 0 if policy == "ROUND_ROBIN" else 90
    assert all(abs(got[key] - share) <= tolerance for key, share in expected.items()), (why, got)


def test_weighted_round_robin_spreads_a_heavy_host_over_the_turn():
    balancer = Balancer(Cluster("c", "STATIC", "ROUND_ROBIN", WEIGHTED))
    turn = "".join(balancer.choose(None, idle, rng()).address[-1] for _ in range(8))
    assert sorted(turn) == sorted("12233333")
    assert "3333" not in turn


def test_least_request_prefers_the_host_with_less_under_way():
    busy = {"127.9.9.1:9001": 9, "127.9.9.2:9002": 9}
    got = picks(Balancer(Cluster("c", "STATIC", "LEAST_REQUEST", EQUAL)), 900, lambda key: busy.get(key, 0))
    assert got["3"] > 450, "one of two random hosts is the idle one in 5 of 9 cases"
    got = picks(Balancer(Cluster("c", "STATIC", "LEAST_REQUEST", EQUAL, least_request_choices=9)), 900, lambda key: busy.get(key, 0))
    assert got["3"] > 850, "more choices see more"
    got = picks(Balancer(Cluster("c", "STATIC", "LEAST_REQUEST", WEIGHTED)), 900, lambda key: 9 if key.endswith("9003") else 0)
    assert got["3"] < 200, "load lowers a weight"


def test_an_ejected_host_gets_nothing():
    cluster = Cluster("c", "STATIC", "ROUND_ROBIN", EQUAL, panic_threshold=0)
    assert set(picks(Balancer(cluster, frozenset({"127.9.9.1:9001"})), 30)) == {"2", "3"}
    assert Balancer(cluster, frozenset(map(key_of, EQUAL))).choose(None, idle, rng()) is None


def test_a_cluster_without_endpoints_has_none_to_give():
    assert Balancer(Cluster("c", "EDS", "ROUND_ROBIN", ())).choose(None, idle, rng()) is None


@pytest.mark.parametrize(
    ("levels", "threshold", "expected", "why"),
    [
        ([(2, 2), (4, 0)], 50, [(70, 2), (30, 4)], "half a level takes 70 % (overprovisioning 1.4), the next one the rest"),
        ([(0, 4), (4, 0)], 50, [(100, 4)], "a dead level is left out while the others have full health"),
        ([(5, 5)], 50, [(100, 5)], "half of the hosts is not below half"),
        ([(1, 3)], 50, [(100, 4)], "below the threshold all hosts are used: panic"),
        ([(1, 3)], 0, [(100, 1)], "a threshold of 0 knows no panic"),
        ([(0, 4)], 50, [(100, 4)], "all hosts, dead as they are"),
        ([(0, 4)], 0, [], "or no host at all"),
        ([(1, 3), (2, 2)], 0, [(35, 1), (65, 2)], "levels help each other out"),
        ([(1, 3), (1, 3)], 50, [(50, 4), (50, 4)], "all in panic: by the number of hosts"),
        ([(0, 2), (0, 3)], 50, [(40, 2), (60, 3)], "all in panic and dead: by the number of hosts"),
        ([(0, 4), (1, 9)], 50, [(29, 4), (71, 10)], "rounding goes to the first"),
        ([(1, 9), (1, 9), (5, 5)], 50, [(15, 10), (14, 10), (71, 5)], "a level in panic keeps its share and uses all its hosts"),
    ],
)
def test_priorities_and_panic_as_observed_on_envoy(levels, threshold, expected, why):
    endpoints = tuple(
        Endpoint(f"127.9.{level}.{number}", 1, priority=level, healthy=number < up)
        for level, (up, down) in enumerate(levels)
        for number in range(up + down)
    )
    cluster = Cluster("c", "STATIC", "RANDOM", endpoints, panic_threshold=threshold)
    assert [(load, len(hosts)) for load, hosts in priority_loads(cluster, frozenset())] == expected, why


def test_a_level_is_chosen_by_its_load():
    endpoints = tuple(Endpoint(f"127.9.0.{n}", 1, priority=n // 3, healthy=n > 0) for n in range(6))
    got = picks(Balancer(Cluster("c", "STATIC", "ROUND_ROBIN", endpoints)), 1000)
    first = got["1"] + got["2"]
    assert abs(first - 930) < 30, "two of three healthy: 93 %"
    assert first + got["3"] + got["4"] + got["5"] == 1000


def test_one_key_always_meets_the_same_level():
    endpoints = tuple(Endpoint(f"127.9.0.{n}", 1, priority=n // 3, healthy=n > 1) for n in range(6))
    balancer = Balancer(Cluster("c", "STATIC", "RING_HASH", endpoints, panic_threshold=0))
    for value in (1, 55, 99, 2**63):
        assert len({balancer.choose(value, idle, random.Random(seed)) for seed in range(5)}) == 1


def test_a_ring_holds_its_minimum_and_no_more_than_its_maximum():
    assert len(build_ring(EQUAL, 1024, 4096)) >= 1024
    assert len(build_ring(WEIGHTED, 1024, 100)) <= 102


def test_a_maglev_table_is_full_and_shared_by_weight():
    table = Counter(host.address[-1] for host in build_maglev(WEIGHTED, 251))
    assert sum(table.values()) == 251
    assert abs(table["3"] - 157) <= 2


def test_the_key_of_an_endpoint_is_its_address():
    assert key_of(Endpoint("10.0.0.1", 80)) == "10.0.0.1:80"
