"""What a proxy changes in the heads that it forwards."""

import random
import re
from collections import Counter

import pytest

from devmesh.sidecar import forwarding
from devmesh.sidecar.config import HttpManager, RouteTable
from devmesh.sidecar.message import RequestHead, ResponseHead, get_header
from devmesh.sidecar.record import Direction, Record
from devmesh.sidecar.tls import Peer

UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CLIENT = Peer("spiffe://cluster.local/ns/default/sa/client", "ab" * 32)
OWN = "spiffe://cluster.local/ns/default/sa/server"


def manager(**fields):
    return HttpManager("test", RouteTable("test", (), {}, (), None), (), **fields)


def prepared(*pairs, direction=Direction.INBOUND, client=None, **fields):
    head = RequestHead(b"GET", b"/", b"a", [(b"host", b"a"), *pairs])
    record = Record(direction, 1)
    upgrade = forwarding.prepare(
        head, record, manager(**fields), "10.0.0.9:4000", forwarding.RequestIds(random.Random(1)), client=client, own=OWN
    )
    return head.headers, record, upgrade


@pytest.mark.parametrize(
    ("given", "gone", "kept"),
    [
        ([(b"connection", b"close, x-secret"), (b"x-secret", b"1")], {b"connection", b"x-secret"}, set()),
        ([(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5")], {b"connection", b"keep-alive"}, set()),
        ([(b"proxy-authorization", b"x"), (b"te", b"gzip")], {b"te"}, {b"proxy-authorization"}),
        ([(b"te", b"trailers")], set(), {b"te"}),
        ([(b"connection", b"x-one"), (b"connection", b"x-two"), (b"x-one", b""), (b"x-two", b"")], {b"x-one", b"x-two"}, set()),
        ([(b"connection", b"content-length, x"), (b"x", b""), (b"content-length", b"3")], {b"x"}, {b"content-length"}),
        ([(b"connection", b"Transfer-Encoding"), (b"transfer-encoding", b"chunked")], set(), {b"transfer-encoding"}),
    ],
    ids=[
        "what connection names",
        "keep-alive",
        "credentials for a proxy stay",
        "trailers stay for gRPC",
        "on either line",
        "not a length",
        "nor chunks",
    ],
)
def test_hop_by_hop_headers_end_here(given, gone, kept):
    names = {name for name, _ in prepared(*given)[0]}
    assert gone.isdisjoint(names)
    assert kept <= names


def test_the_record_speaks_of_the_head_as_it_goes_on():
    headers, record, _ = prepared((b"connection", b"close"), (b"x-forwarded-client-cert", b"forged"))
    headers.append((b"user-agent", b"set by a route"))
    assert record.request_headers == headers
    assert get_header(record.request_headers, b"x-forwarded-client-cert") is None


def test_a_proxy_before_us_knows_what_the_client_spoke_and_was_asked_for():
    for proto, expected in ((b"https", b"https"), (b"http", b"http"), (b"ftp", b"https"), (b"", b"https")):
        head = RequestHead(b"GET", b"/b", b"a", [(b"x-forwarded-proto", proto), (b"x-envoy-original-path", b"/a")], b"https")
        record = Record(Direction.INBOUND, 1, b"GET", b"/b")
        forwarding.prepare(head, record, manager(), "10.0.0.9:4000", forwarding.RequestIds(random.Random(1)), client=None, own=OWN)
        assert (head.scheme, record.target) == (expected, b"/a"), "what is no scheme tells nothing"


def test_an_expectation_is_met_here_or_passed_on():
    expecting = (b"expect", b"100-continue")
    assert expecting not in prepared(expecting)[0]
    assert expecting in prepared(expecting, proxy_100_continue=True)[0], "the app says whether the client may go on"


def test_an_upgrade_is_asked_for_by_both_headers_or_not_at_all():
    assert prepared((b"connection", b"Upgrade"), (b"upgrade", b"WebSocket"))[2] == b"websocket"
    assert prepared((b"upgrade", b"websocket"))[2] == b""
    assert prepared((b"connection", b"upgrade, http2-settings"), (b"upgrade", b"h2c"))[2] == b"", "which nobody has to follow"


def test_a_request_id_is_kept_inside_the_mesh_and_made_anew_at_its_edge():
    inside, record, _ = prepared((b"x-request-id", b"mine"))
    assert (get_header(inside, b"x-request-id"), record.request_id) == (b"mine", b"mine")
    edge, record, _ = prepared((b"x-request-id", b"mine"), use_remote_address=True)
    assert UUID4.fullmatch(record.request_id)
    assert [value for name, value in edge if name == b"x-request-id"] == [record.request_id]


def test_request_ids_are_random_uuids():
    ids = forwarding.RequestIds(random.Random(7))
    made = {ids.next() for _ in range(1000)}
    assert len(made) == 1000
    assert all(UUID4.fullmatch(one) for one in made)
    variants = Counter(one[19:20] for one in made)
    assert set(variants) == {b"8", b"9", b"a", b"b"}
    assert all(200 < count < 300 for count in variants.values())


@pytest.mark.parametrize("name", sorted(forwarding.STEERING))
def test_no_client_steers_a_sidecar(name):
    assert get_header(prepared((name, b"9"))[0], name) is None
    assert get_header(prepared((name, b"9"), use_remote_address=True)[0], name) is None


@pytest.mark.parametrize("name", sorted(forwarding.TOLD | {b"x-envoy-external-address"}))
def test_what_proxies_tell_each_other_nobody_outside_may_say(name):
    headers, _, _ = prepared((name, b"9"), use_remote_address=True)
    assert get_header(headers, name) == (b"10.0.0.9" if name == b"x-envoy-external-address" else None)
    assert get_header(prepared((name, b"9"))[0], name) == b"9"


def test_the_edge_believes_nothing_that_only_the_mesh_may_say():
    headers, _, _ = prepared(
        (b"x-envoy-retry-on", b"5xx"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"1.1.1.1"), use_remote_address=True
    )
    assert get_header(headers, b"x-envoy-retry-on") is None
    assert get_header(headers, b"x-forwarded-proto") == b"http"
    assert get_header(headers, b"x-forwarded-for") == b"1.1.1.1,10.0.0.9"


@pytest.mark.parametrize(
    ("given", "remote"),
    [
        ((b"192.0.2.9, 192.0.2.8",), "192.0.2.8:0"),
        ((b"192.0.2.9", b"192.0.2.8"), "192.0.2.8:0"),
        ((b"2001:DB8::1",), "[2001:db8::1]:0"),
        ((b"192.0.2.9, garbage",), ""),
        ((b"192.0.2.9:80",), ""),
    ],
    ids=["the last one", "on either line", "IPv6", "no address", "no port"],
)
def test_behind_a_proxy_the_caller_is_whom_that_names_last(given, remote):
    headers, record, _ = prepared(*((b"x-forwarded-for", one) for one in given))
    assert record.downstream_remote == remote
    assert [value for name, value in headers if name == b"x-forwarded-for"] == [b",".join(given)]


def test_the_edge_believes_nobody_and_keeps_every_line():
    headers, record, _ = prepared((b"x-forwarded-for", b"192.0.2.9"), (b"x-forwarded-for", b"192.0.2.8"), use_remote_address=True)
    assert get_header(headers, b"x-forwarded-for") == b"192.0.2.9,192.0.2.8,10.0.0.9"
    assert record.downstream_remote == ""


def test_a_client_certificate_header_from_nobody_proven_is_dropped():
    headers, _, _ = prepared((b"x-forwarded-client-cert", b"URI=spiffe://forged"), forward_client_cert="APPEND_FORWARD")
    assert get_header(headers, b"x-forwarded-client-cert") is None


def test_a_proven_client_is_named_and_what_it_forwards_comes_first():
    headers, _, _ = prepared(
        (b"x-forwarded-client-cert", b"Hash=1"), client=CLIENT, forward_client_cert="APPEND_FORWARD", client_cert_details=("subject", "uri")
    )
    expected = f'Hash=1,By={OWN};Hash={CLIENT.certificate_hash};Subject="";URI={CLIENT.spiffe_id}'
    assert get_header(headers, b"x-forwarded-client-cert") == expected.encode()
    assert get_header(headers, b"x-forwarded-proto") == b"https"


@pytest.mark.parametrize(
    "given", [[(b"x-envoy-peer-metadata", b"m"), (b"x-envoy-peer-metadata-id", b"i")], [(b"x-envoy-peer-metadata-id", b"i")]]
)
def test_a_peers_metadata_ends_at_the_inbound_side_and_is_recorded(given):
    headers, record, _ = prepared(*given)
    assert not [name for name, _ in headers if name.startswith(b"x-envoy-peer-metadata")]
    assert record.peer_metadata == dict(given).get(b"x-envoy-peer-metadata", b"")


def test_a_response_loses_its_hops_and_gives_its_peer():
    pairs = [(b"connection", b"keep-alive, x-hop"), (b"x-hop", b"1"), (b"keep-alive", b"5"), (b"x-envoy-peer-metadata", b"m"), (b"x", b"y")]
    assert forwarding.clean_response(ResponseHead(200, pairs)) == b"m"
    assert pairs == [(b"x-hop", b"1"), (b"x", b"y")]
    assert forwarding.clean_response(ResponseHead(200, pairs)) is None
