"""Versions by content, and what a snapshot says of itself."""

from devmesh.xds.snapshot import Snapshot

CLUSTER = {"name": "c", "type": "EDS"}
ASSIGNMENT = {"cluster_name": "c"}
TABLE = {"name": "80"}
MANAGER = {"typed_config": {"rds": {"route_config_name": "80"}}}
LISTENER = {"name": "l", "filter_chains": [{"filters": [MANAGER]}]}


def test_equal_content_has_an_equal_version_whatever_the_order_of_its_keys():
    one = Snapshot.of([LISTENER], [TABLE], [CLUSTER], [ASSIGNMENT])
    other = Snapshot.of([dict(reversed(LISTENER.items()))], [TABLE], [dict(reversed(CLUSTER.items()))], [ASSIGNMENT])
    assert one.version == other.version
    assert one.version != Snapshot.of([LISTENER], [TABLE], [CLUSTER], []).version


def test_what_is_referred_to_and_not_there_is_named():
    assert Snapshot.of([LISTENER], [TABLE], [CLUSTER], [ASSIGNMENT]).consistent() == []
    assert Snapshot.of([LISTENER], [], [CLUSTER], []).consistent() == ["route table 80", "endpoints of c"]


def test_a_difference_names_what_is_new_gone_or_other():
    older = Snapshot.of([LISTENER], [TABLE], [CLUSTER, {"name": "gone"}], [ASSIGNMENT])
    newer = Snapshot.of([LISTENER], [TABLE], [CLUSTER | {"type": "STATIC"}, {"name": "new"}], [ASSIGNMENT])
    assert newer.diff(older) == {
        "listeners": set(),
        "routes": set(),
        "clusters": {"c", "gone", "new"},
        "endpoints": set(),
        "names": set(),
        "secrets": set(),
    }
