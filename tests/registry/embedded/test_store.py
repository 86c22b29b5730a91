"""The embedded registry's decisions, time given by hand."""

import pytest

from devmesh.registry.embedded.store import Check, HttpProbe, KvOperation, Service, Store, TransactionError, UnknownCheckError

SERVICE = Service(id="reviews-v1", name="reviews", address="127.7.0.3", port=9080)
TTL = Check(id="service:reviews-v1", name="ttl", service_id="reviews-v1", service_name="reviews", ttl=15.0)


@pytest.fixture
def store():
    store = Store()
    store.register(SERVICE, [TTL], now=0.0)
    return store


def status(store):
    return store.checks[TTL.id].status


def test_a_report_holds_for_one_ttl(store):
    store.report(TTL.id, "passing", "", now=10.0)
    assert store.sweep(24.9) == []
    assert status(store) == "passing"
    assert store.sweep(25.0) != []
    assert status(store) == "critical"


def test_a_repeated_report_moves_the_deadline_and_wakes_nobody(store):
    store.report(TTL.id, "passing", "", now=10.0)
    index = store.index
    assert store.report(TTL.id, "passing", "", now=20.0) == []
    assert store.index == index
    assert store.sweep(30.0) == []
    assert status(store) == "passing"


def test_after_a_replay_a_check_has_one_whole_ttl_to_be_heard_of(store):
    store.report(TTL.id, "passing", "", now=10.0)
    again = Store()
    again.apply(store.records())
    assert again.sweep(1000.0) == []
    assert again.sweep(1014.9) == []
    assert again.sweep(1015.0) != []


def test_a_service_is_reaped_when_its_check_stayed_critical(store):
    store.register(SERVICE, [Check(**{**fields(TTL), "deregister_after": 60.0})], now=0.0)
    store.report(TTL.id, "passing", "", now=1.0)
    store.sweep(16.0)
    store.sweep(75.9)
    assert "reviews-v1" in store.services
    store.sweep(76.0)
    assert store.services == {}
    assert store.checks == {}


def fields(check):
    return {name: getattr(check, name) for name in check.__slots__}


def test_a_ttl_report_on_an_http_check_is_unknown(store):
    store.add_check(Check(id="http", name="http", http=HttpProbe("http://127.0.0.1:1/", 1.0)), now=0.0)
    with pytest.raises(UnknownCheckError):
        store.report("http", "passing", "", now=1.0)


def test_a_failed_transaction_leaves_no_trace(store):
    index = store.index
    with pytest.raises(TransactionError) as caught:
        store.transact([KvOperation("set", "a", b"1"), KvOperation("check-not-exists", "a")])
    assert caught.value.position == 1
    assert (store.kv, store.index) == ({}, index)


def test_all_writes_of_a_transaction_have_one_index(store):
    store.transact([KvOperation("set", "a", b"1"), KvOperation("set", "b", b"2"), KvOperation("set", "a", b"3")])
    assert {entry.modify_index for entry in store.kv.values()} == {store.index}
    assert store.kv["a"].value == b"3"


@pytest.mark.parametrize(
    ("operation", "succeeds"),
    [
        (KvOperation("check-index", "a", index=99), False),
        (KvOperation("check-not-exists", "b"), True),
        (KvOperation("delete-cas", "a", index=99), False),
        (KvOperation("delete-tree", "nothing/"), True),
        (KvOperation("get", "b"), False),
        (KvOperation("explode", "a"), False),
    ],
    ids=lambda value: value.verb if isinstance(value, KvOperation) else None,
)
def test_each_verb_says_whether_it_holds(store, operation, succeeds):
    store.kv_put("a", b"1")
    if succeeds:
        store.transact([operation])
    else:
        with pytest.raises(TransactionError):
            store.transact([operation])


def test_a_deletion_moves_the_index_of_its_prefix_only(store):
    store.kv_put("a/1", b"x")
    store.kv_put("b/1", b"x")
    before = store.kv_index_of("b/", recurse=True)
    store.kv_delete("a/1")
    assert store.kv_index_of("a/", recurse=True) == store.index
    assert store.kv_index_of("b/", recurse=True) == before


def test_records_rebuild_the_same_store(store):
    store.kv_put("a", b"\x00\xff", flags=7)
    store.kv_put("b", b"x")
    store.kv_delete("b")
    store.register(Service(id="gone", name="gone"), [], now=0.0)
    store.deregister("gone")
    again = Store()
    again.apply(store.records())
    assert (again.kv, again.services, again.checks) == (store.kv, store.services, store.checks)
    assert (again.index, again.kv_index, again.service_index) == (store.index, store.kv_index, store.service_index)
