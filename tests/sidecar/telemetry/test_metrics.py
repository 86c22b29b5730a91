import random
import re

import pytest

from devmesh.sidecar.config import Cluster
from devmesh.sidecar.record import Flag
from devmesh.sidecar.telemetry import metrics
from devmesh.sidecar.telemetry.metrics import BUCKETS, Histogram, Metrics, Service
from devmesh.sidecar.telemetry.peer import PeerLabels, encode
from tests.sidecar.telemetry.records import CLUSTER, inbound, outbound

OWN = PeerLabels("productpage-v1", "default", "productpage", "v1", "productpage", "Kubernetes")
OWN_SERVICE = Service("productpage.default.svc.cluster.local", "productpage", "default")
REVIEWS = Cluster(
    CLUSTER, "EDS", "LEAST_REQUEST", (), service="reviews.default.svc.cluster.local", service_name="reviews", service_namespace="default"
)
PEER = encode(PeerLabels("reviews-v2", "default", "reviews", "v2", "reviews", "Kubernetes"))


def fresh():
    return Metrics(OWN, "spiffe://cluster.local/ns/default/sa/productpage", OWN_SERVICE)


def samples(found):
    """Series of the text format: (name, labels) -> value."""
    out = {}
    for line in found.render().splitlines():
        if not line.startswith("#"):
            name, text, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            out[name, tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text or ""))] = float(value)
    return out


def labels(found, name="istio_requests_total"):
    (only,) = [dict(pairs) for series, pairs in samples(found) if series == name]
    return only


def test_a_request_out_is_counted_with_istios_labels():
    found = fresh()
    found.request(outbound(mtls=True, peer_metadata=PEER, peer_principal="spiffe://cluster.local/ns/default/sa/reviews"), REVIEWS)
    assert labels(found) == {
        "reporter": "source",
        "source_workload": "productpage-v1",
        "source_workload_namespace": "default",
        "source_principal": "spiffe://cluster.local/ns/default/sa/productpage",
        "source_app": "productpage",
        "source_version": "v1",
        "source_cluster": "Kubernetes",
        "source_canonical_service": "productpage",
        "source_canonical_revision": "v1",
        "destination_workload": "reviews-v2",
        "destination_workload_namespace": "default",
        "destination_principal": "spiffe://cluster.local/ns/default/sa/reviews",
        "destination_app": "reviews",
        "destination_version": "v2",
        "destination_cluster": "Kubernetes",
        "destination_canonical_service": "reviews",
        "destination_canonical_revision": "v2",
        "destination_service": "reviews.default.svc.cluster.local",
        "destination_service_name": "reviews",
        "destination_service_namespace": "default",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "unknown",
    }


@pytest.mark.parametrize(
    ("record", "cluster", "expected", "why"),
    [
        (inbound(mtls=True), None, {"reporter": "destination", "connection_security_policy": "mutual_tls"}, "the callee knows about mTLS"),
        (
            inbound(),
            None,
            {"connection_security_policy": "none", "source_principal": "unknown", "destination_principal": "unknown"},
            "plain text",
        ),
        (
            inbound(),
            None,
            {"destination_service_name": "productpage", "destination_workload": "productpage-v1"},
            "a request in is for ourselves",
        ),
        (inbound(peer_metadata=PEER), None, {"source_workload": "reviews-v2", "source_app": "reviews"}, "from who says so"),
        (inbound(peer_metadata=b"?"), None, {"source_workload": "unknown"}, "or from nobody"),
        (outbound(status=503, flags=Flag.URX | Flag.UF), REVIEWS, {"response_code": "503", "response_flags": "URX,UF"}, "how it ended"),
        (outbound(status=0, flags=Flag.DC), REVIEWS, {"response_code": "0", "response_flags": "DC"}, "or did not"),
        (
            outbound(request_headers=[(b"content-type", b"application/grpc")]),
            REVIEWS,
            {"request_protocol": "grpc"},
            "gRPC is told apart",
        ),
        (
            outbound(upstream_cluster="PassthroughCluster", authority=b"API.example.com:443"),
            None,
            {
                "destination_service": "api.example.com",
                "destination_service_name": "PassthroughCluster",
                "destination_service_namespace": "unknown",
            },
            "outside the mesh the host is the service",
        ),
        (outbound(upstream_cluster="", authority=b"nowhere"), None, {"destination_service": "nowhere"}, "also where no route leads"),
    ],
)
def test_labels_say(record, cluster, expected, why):
    found = fresh()
    found.request(record, cluster)
    seen = labels(found)
    assert {key: seen[key] for key in expected} == expected, why


def test_equal_requests_are_one_series_and_others_are_not():
    found = fresh()
    for _ in range(3):
        found.request(outbound(), REVIEWS)
    found.request(outbound(status=404), REVIEWS)
    counts = {dict(pairs)["response_code"]: value for (name, pairs), value in samples(found).items() if name == "istio_requests_total"}
    assert counts == {"200": 3, "404": 1}


def test_durations_and_sizes_are_histograms():
    found = fresh()
    for duration, received, sent in ((0.0004, 0, 1), (0.01, 3, 100), (0.0101, 5_000_000_000, 123_456_789)):
        found.request(outbound(duration=duration, bytes_received=received, bytes_sent=sent), REVIEWS)
    seen = {(name, dict(pairs).get("le")): value for (name, pairs), value in samples(found).items()}
    buckets = {le: value for (name, le), value in seen.items() if name == "istio_request_duration_milliseconds_bucket"}
    assert list(buckets) == [*(f"{bound}" for bound in BUCKETS), "+Inf"]
    assert (buckets["0.5"], buckets["5"], buckets["10"], buckets["25"], buckets["+Inf"]) == (1, 1, 2, 3, 3)
    assert seen["istio_request_duration_milliseconds_count", None] == 3
    assert abs(seen["istio_request_duration_milliseconds_sum", None] - 20.5) < 1e-9
    assert seen["istio_request_bytes_bucket", "3600000"] == 2
    assert seen["istio_request_bytes_sum", None] == 5_000_000_003, "no digit of a sum is rounded away"
    assert seen["istio_response_bytes_sum", None] == 123_456_890


def test_connections_are_counted_when_they_open_and_when_they_close():
    found = fresh()
    record = outbound(method=b"", bytes_sent=10, bytes_received=4)
    found.opened(record, REVIEWS)
    assert samples(found)["istio_tcp_connections_opened_total", tuple(labels(found, "istio_tcp_connections_opened_total").items())] == 1
    found.closed(record, REVIEWS)
    values = {name: value for (name, _), value in samples(found).items()}
    assert values == {
        "istio_build": 1,
        "istio_tcp_connections_opened_total": 1,
        "istio_tcp_connections_closed_total": 1,
        "istio_tcp_sent_bytes_total": 10,
        "istio_tcp_received_bytes_total": 4,
    }
    assert labels(found, "istio_tcp_sent_bytes_total")["request_protocol"] == "tcp"
    assert "response_code" not in labels(found, "istio_tcp_sent_bytes_total")


def test_every_fault_says_how_often_it_fired():
    found = fresh()
    for flags in (Flag.FI, Flag.DI, Flag.DI | Flag.FI, Flag.NONE):
        found.request(outbound(flags=flags, fault_id='f"1'), REVIEWS)
    assert 'devmesh_fault_hits_total{fault="f\\"1"} 3' in found.render()


def test_other_counters_are_read_at_the_scrape():
    found = fresh()
    counted = iter((1, 2))
    found.gauges["devmesh_spans_dropped_total"] = lambda: next(counted)
    assert "\ndevmesh_spans_dropped_total 1\n" in found.render()
    assert "\ndevmesh_spans_dropped_total 2\n" in found.render()


def test_label_values_are_escaped():
    found = fresh()
    found.request(outbound(upstream_cluster="", authority=b'a"b\\c\nd'), None)
    assert 'destination_service="a\\"b\\\\c\\nd"' in found.render()


def test_invented_hosts_and_peers_do_not_make_series_without_end(monkeypatch):
    monkeypatch.setattr(metrics, "SERIES", 5)
    found = fresh()
    for number in range(20):
        found.request(outbound(upstream_cluster="", authority=b"h%d" % number), None)
        found.closed(outbound(upstream_cluster="", authority=b"h%d" % number), None)
    counts = [value for (name, _), value in samples(found).items() if name == "istio_requests_total"]
    assert sum(counts) == 20, "every request is counted"
    assert sorted(counts) == [1, 1, 1, 1, 1, 15], "what is too many shares one series"
    assert sum(value for (name, _), value in samples(found).items() if name == "istio_tcp_connections_closed_total") == 20


def test_one_cluster_name_may_become_a_service_later():
    found = fresh()
    found.request(outbound(), None)
    found.request(outbound(), REVIEWS)
    services = {dict(pairs)["destination_service"] for name, pairs in samples(found) if name == "istio_requests_total"}
    assert services == {"reviews", "reviews.default.svc.cluster.local"}


OTHERS = [
    {"status": 503},
    {"flags": Flag.UH},
    {"mtls": True},
    {"peer_metadata": PEER},
    {"peer_principal": "spiffe://cluster.local/ns/default/sa/reviews", "mtls": True},
    {"request_headers": [(b"content-type", b"application/grpc")]},
    {"authority": b"elsewhere"},
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: next(iter(other)))
def test_requests_of_one_cluster_that_differ_in_one_thing_are_counted_apart_in_any_order(other):
    found = fresh()
    for different in (False, False, True, True, False, True, False):
        found.request(outbound(**other) if different else outbound(), None)
    counts = [value for (name, _), value in samples(found).items() if name == "istio_requests_total"]
    assert sorted(counts) == [3, 4]


@pytest.mark.parametrize("many", [0, 1, 2, 200])
def test_a_histogram_has_each_value_in_the_first_bucket_that_holds_it_whenever_it_is_read(many):
    rng = random.Random(many)
    values = [rng.choice([0, 0.5, 1, 24.9, 25, 25.1, 3_600_000, 3_600_001, rng.uniform(0, 5000)]) for _ in range(many)]
    histogram = Histogram()
    for index, value in enumerate(values):
        histogram.observe(value)
        if index % 50 == 0:
            histogram.read()
    counts, total = histogram.read()
    bounds = [*BUCKETS, float("inf")]
    expected = [sum(1 for value in values if next(bound for bound in bounds if value <= bound) == wanted) for wanted in bounds]
    assert counts == expected
    assert total == pytest.approx(sum(values))
