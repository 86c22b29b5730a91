import random
from datetime import UTC, datetime, timedelta

import pytest

from devmesh.ca.identity import InvalidSpiffeIdError, SpiffeId, TrustBundle, renewal_time, split_pem

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_workload_id_is_istios():
    assert str(SpiffeId.of("default", "bookinfo-reviews")) == "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"


@pytest.mark.parametrize("text", ["spiffe://cluster.local/ns/default/sa/x", "spiffe://cluster.local"])
def test_parsing_and_printing_agree(text):
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://cluster.local/ns/a/sa/b",
        "spiffe://",
        "spiffe:///ns/a",
        "spiffe://Cluster.local/x",
        "spiffe://user@cluster.local/x",
        "spiffe://cluster.local:80/x",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/a//b",
        "spiffe://cluster.local/a/../b",
        "spiffe://cluster.local/./b",
        "spiffe://cluster.local/a/",
        "spiffe://cluster.local/a?b",
        "spiffe://cluster.local/a#b",
        "spiffe://cluster.local/%61",
        "spiffe://cluster.local/" + "a" * 2048,
    ],
)
def test_what_is_not_canonical_is_refused(text):
    with pytest.raises(InvalidSpiffeIdError):
        SpiffeId.parse(text)


def test_a_bundle_is_split_and_joined():
    assert split_pem(PEM + "\n" + PEM.replace("\n", "\r\n")) == (PEM, PEM)
    assert TrustBundle.parse(PEM + PEM).pem == PEM + PEM


def test_a_bundle_without_a_certificate_is_refused():
    with pytest.raises(ValueError, match="no certificate"):
        TrustBundle.parse("nothing")


def test_renewal_is_around_half_life_and_not_at_the_same_moment_for_all():
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    times = {renewal_time(issued, issued + timedelta(hours=1), random.Random(seed)) - issued for seed in range(50)}
    assert timedelta(minutes=24) <= min(times) < timedelta(minutes=27)
    assert timedelta(minutes=33) < max(times) <= timedelta(minutes=36)
