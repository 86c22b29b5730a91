import pytest

from devmesh.xds.rest import SIDECAR_TYPES, TYPE_URLS, DiscoveryRequest, DiscoveryResponse, MalformedError, PollState, Staging, is_due

NODE = {"id": "sidecar~127.7.0.1~reviews-v1.default~default.svc.cluster.local"}


def reply(version, nonce="1", *resources):
    return DiscoveryResponse(version, nonce, resources)


def bring(staging, version, *, nonce="1", types=SIDECAR_TYPES, routes=()):
    for name in types:
        staging.polls[name].received(reply(version, nonce, *(routes if name == "routes" else ())))


def test_a_conversation_reads_request_ack_nack():
    poll = PollState("routes")
    assert (poll.request(NODE).version, poll.request(NODE).nonce) == ("", "")
    poll.received(reply("v1", "a"))
    assert poll.request(NODE) == DiscoveryRequest(TYPE_URLS["routes"], NODE, "", "a")  # still staging
    poll.accepted("v1")
    assert poll.request(NODE) == DiscoveryRequest(TYPE_URLS["routes"], NODE, "v1", "a")  # ACK
    poll.received(reply("v2", "b"))
    poll.refused("bad route")
    assert poll.request(NODE) == DiscoveryRequest(TYPE_URLS["routes"], NODE, "v1", "b", "bad route")  # NACK
    poll.received(reply("v3", "c"))
    assert poll.request(NODE).error is None


def test_requests_and_responses_survive_their_json():
    request = DiscoveryRequest(TYPE_URLS["routes"], NODE, "v1", "b", "bad route")
    assert DiscoveryRequest.parse(request.to_json()) == request
    assert request.to_json()["error_detail"] == {"code": 3, "message": "bad route"}
    assert "error_detail" not in DiscoveryRequest(TYPE_URLS["routes"]).to_json()
    response = DiscoveryResponse("v1", "b", ({"name": "9080"},), TYPE_URLS["routes"])
    assert DiscoveryResponse.parse(response.to_json()) == response


@pytest.mark.parametrize("body", [None, [], "x"])
def test_what_is_no_request_is_refused(body):
    with pytest.raises(MalformedError):
        DiscoveryRequest.parse(body)


@pytest.mark.parametrize("body", [None, {}, {"version_info": "v", "resources": {}}, {"version_info": "v", "resources": [1]}])
def test_what_is_no_response_is_refused(body):
    with pytest.raises(MalformedError):
        DiscoveryResponse.parse(body)


@pytest.mark.parametrize(
    ("request_version", "nonce", "sent", "due", "why"),
    [
        ("", "", ("", ""), True, "a new proxy has nothing"),
        ("v2", "b", ("b", "v2"), False, "it runs what there is"),
        ("v2", "", ("", ""), False, "it runs what there is, from before our restart"),
        ("v1", "b", ("b", "v2"), False, "it stages or has refused what it was sent"),
        ("v1", "a", ("a", "v1"), True, "there is a newer version"),
        ("v1", "x", ("b", "v2"), True, "it did not get our last reply"),
    ],
)
def test_a_server_answers_or_holds(request_version, nonce, sent, due, why):
    request = DiscoveryRequest("", version=request_version, nonce=nonce)
    assert is_due(request, "v2", *sent) is due, why


def test_nothing_is_whole_before_all_types_brought_one_version():
    staging = Staging()
    bring(staging, "v1", types=["listeners", "clusters", "routes", "endpoints"])
    assert staging.snapshot() is None
    assert not staging.is_contradictory()
    staging.polls["names"].received(reply("v2"))
    assert staging.snapshot() is None
    assert staging.is_contradictory()
    bring(staging, "v2", types=["listeners", "clusters", "routes", "endpoints"])
    assert staging.snapshot() == {"version": "v2", "listeners": [], "clusters": [], "routes": [], "endpoints": [], "names": []}


def test_accepting_acknowledges_every_type_and_empties_the_stage():
    staging = Staging()
    bring(staging, "v1")
    staging.accept("v1")
    assert staging.snapshot() is None
    assert {poll.request(NODE).version for poll in staging.polls.values()} == {"v1"}


def test_refusing_names_the_type_at_fault():
    staging = Staging()
    bring(staging, "v1", routes=[{"name": "9080"}])
    staging.refuse("9080", "bad")
    assert {name: poll.error for name, poll in staging.polls.items() if poll.error} == {"routes": "bad"}
    assert {poll.request(NODE).version for poll in staging.polls.values()} == {""}


def test_refusing_something_nameless_is_said_by_all_types():
    staging = Staging()
    bring(staging, "v1")
    staging.refuse("?", "bad")
    assert {poll.error for poll in staging.polls.values()} == {"bad"}
