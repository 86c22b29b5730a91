"""Consul's request bodies, as tolerant and as strict as Consul is."""

import pytest

from devmesh.registry.embedded.views import BadRequestError, parse_check, parse_operations, parse_service


@pytest.mark.parametrize("spelling", ["TaggedAddresses", "tagged_addresses", "taggedaddresses"])
def test_field_names_are_taken_in_any_spelling(spelling):
    service, _ = parse_service({"Name": "reviews", spelling: {"virtual": {"address": "240.240.0.1", "Port": 80}}})
    assert service.tagged_addresses == {"virtual": {"Address": "240.240.0.1", "Port": 80}}


def test_an_id_defaults_to_the_name_and_check_ids_to_the_services():
    service, [one] = parse_service({"Name": "web", "Check": {"TTL": "1m30s"}})
    assert (service.id, one.id, one.ttl, one.status) == ("web", "service:web", 90.0, "critical")
    _, checks = parse_service({"Name": "web", "Checks": [{"TTL": "10s"}, {"TTL": "20s"}]})
    assert [check.id for check in checks] == ["service:web:1", "service:web:2"]


@pytest.mark.parametrize(
    "body",
    [{"TTL": "soon"}, {"TTL": "10s", "Status": "fine"}, {"TCP": "127.0.0.1:1", "Interval": "1s"}, {"HTTP": "http://127.0.0.1/"}, []],
    ids=["no duration", "no status", "a kind we lack", "no interval", "no object"],
)
def test_a_check_that_could_not_work_is_refused(body):
    with pytest.raises((BadRequestError, ValueError)):
        parse_check(body)


@pytest.mark.parametrize("body", [{}, [1], [{"KV": None}], [{"Node": {}}]], ids=["object", "number", "null", "not a KV"])
def test_a_transaction_that_is_not_a_list_of_kv_operations_is_refused(body):
    with pytest.raises(BadRequestError):
        parse_operations(body)
