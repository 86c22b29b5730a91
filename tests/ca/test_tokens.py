import pytest

from devmesh.ca.identity import SpiffeId
from devmesh.ca.tokens import Grant, TokenStore

REVIEWS = SpiffeId.of("default", "bookinfo-reviews")


def test_a_token_speaks_for_one_workload_and_outlives_a_restart(tmp_path):
    token = TokenStore(tmp_path / "tokens.json").mint("reviews-v1", REVIEWS)
    assert TokenStore(tmp_path / "tokens.json").grant_of(token) == Grant("reviews-v1", REVIEWS)


def test_the_file_is_private_and_does_not_hold_the_token(tmp_path):
    token = TokenStore(tmp_path / "tokens.json").mint("reviews-v1", REVIEWS)
    assert token not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_a_revoked_token_is_nobodys_after_a_restart_too(tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    token = store.mint("reviews-v1", REVIEWS)
    assert store.revoke("reviews-v1")
    assert not store.revoke("reviews-v1")
    assert store.grant_of(token) is None
    assert TokenStore(tmp_path / "tokens.json").grant_of(token) is None


def test_an_identity_is_known_while_one_of_its_workloads_has_a_token(tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    store.mint("reviews-v1", REVIEWS)
    store.mint("reviews-v2", REVIEWS)
    store.revoke("reviews-v1")
    assert store.knows(REVIEWS)
    store.revoke("reviews-v2")
    assert not store.knows(REVIEWS)


def test_a_new_token_replaces_the_old(tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    old = store.mint("reviews-v1", REVIEWS)
    new = store.mint("reviews-v1", REVIEWS)
    assert store.grant_of(old) is None
    assert store.grant_of(new) is not None


def test_many_tokens_are_minted_at_once_and_leave_those_of_others(tmp_path):
    file = tmp_path / "tokens.json"
    store = TokenStore(file)
    other, old = store.mint("other", REVIEWS), store.mint("reviews-v1", REVIEWS)
    tokens = store.mint_all({"reviews-v1": REVIEWS, "reviews-v2": REVIEWS}, durable=False)
    kept = TokenStore(file)
    assert {name: kept.grant_of(token) for name, token in tokens.items()} == {
        name: Grant(name, REVIEWS) for name in ("reviews-v1", "reviews-v2")
    }
    assert kept.grant_of(other) == Grant("other", REVIEWS)
    assert kept.grant_of(old) is None


def test_a_damaged_store_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ValueError):
        TokenStore(tmp_path / "tokens.json")
