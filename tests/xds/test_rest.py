import orjson
import pytest

from devmesh.xds.rest import (
    SIDECAR_TYPES,
    TYPE_URLS,
    AggregatedResponse,
    Conversation,
    DiscoveryRequest,
    DiscoveryResponse,
    MalformedError,
    PollState,
    aggregated_requests,
    is_due,
)

NODE = {"id": "sidecar~127.7.0.1~reviews-v1.default~default.svc.cluster.local"}


def reply(version, nonce="1", *resources):
    return DiscoveryResponse(version, nonce, resources)


def answer(version, types=SIDECAR_TYPES, nonce="1", **resources):
    return AggregatedResponse(version, {name: reply(version, nonce, *resources.get(name, ())) for name in types})


def said(conversation):
    """What the next poll says of each type: version, nonce, error."""
    return {kind: (one.version, one.nonce, one.error) for kind, one in aggregated_requests(conversation.request(NODE)).items()}


def test_a_conversation_reads_request_ack_nack():
    poll = PollState("routes")
    assert (poll.request().version, poll.request().nonce) == ("", "")
    poll.received(reply("v1", "a"))
    assert poll.request() == DiscoveryRequest(TYPE_URLS["routes"], {}, "", "a")  # still staging
    poll.accepted()
    assert poll.request() == DiscoveryRequest(TYPE_URLS["routes"], {}, "v1", "a")  # ACK
    poll.received(reply("v2", "b"))
    poll.refused("bad route")
    assert poll.request() == DiscoveryRequest(TYPE_URLS["routes"], {}, "v1", "b", "bad route")  # NACK
    poll.received(reply("v3", "c"))
    assert poll.request().error is None


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


@pytest.mark.parametrize("body", [None, {}, {"requests": []}, {"requests": [1]}, {"requests": [{"type_url": "a.B"}]}])
def test_what_is_no_aggregated_poll_is_refused(body):
    with pytest.raises(MalformedError):
        aggregated_requests(body)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"responses": []},
        {"version_info": "v"},
        {"version_info": "v", "responses": [{}]},
        {"version_info": "v", "responses": [{"version_info": "v", "type_url": "a.B"}]},
    ],
)
def test_what_is_no_answer_to_an_aggregated_poll_is_refused(body):
    with pytest.raises(MalformedError):
        AggregatedResponse.parse(body)


def test_an_answer_survives_its_json_also_when_its_resources_are_json_already():
    plain = DiscoveryResponse("v1", "a", ({"name": "9080"}, {"name": "80"}), TYPE_URLS["routes"])
    encoded = DiscoveryResponse(
        *(getattr(plain, name) for name in ("version", "nonce", "resources", "type_url")), (b'{"name":"9080"}', b'{"name":"80"}')
    )
    for response in (plain, encoded):
        sent = AggregatedResponse("w1", {"routes": response})
        assert AggregatedResponse.parse(orjson.loads(orjson.dumps(sent.to_json()))) == sent


def test_a_poll_names_its_node_once():
    asked = Conversation().request(NODE)
    assert asked["node"] == NODE
    assert all("node" not in one for one in asked["requests"])


def test_accepting_acknowledges_every_type_of_the_answer():
    conversation = Conversation()
    changes = conversation.received(answer("v1", routes=[{"name": "9080"}]))
    assert (changes["version"], changes["routes"], changes["clusters"]) == ("v1", [{"name": "9080"}], [])
    assert said(conversation) == dict.fromkeys(SIDECAR_TYPES, ("", "1", None)), "not yet in force"
    conversation.accept()
    assert said(conversation) == dict.fromkeys(SIDECAR_TYPES, ("v1", "1", None))


def test_only_what_changed_is_staged_and_the_rest_keeps_its_version():
    conversation = Conversation()
    conversation.received(answer("v1"))
    conversation.accept()
    changes = conversation.received(answer("v2", ["routes"], "2"))
    assert changes == {"routes": [], "version": "v2", "versions": dict.fromkeys(SIDECAR_TYPES, "v1") | {"routes": "v2"}}
    conversation.accept()
    assert said(conversation) == dict.fromkeys(SIDECAR_TYPES, ("v1", "1", None)) | {"routes": ("v2", "2", None)}


def test_refusing_names_the_type_at_fault_and_keeps_the_version_of_all():
    conversation = Conversation()
    conversation.received(answer("v1"))
    conversation.accept()
    conversation.received(answer("v2", ["routes", "clusters"], "2", routes=[{"name": "9080"}]))
    conversation.refuse("9080", "bad")
    refused = {"routes": ("v1", "2", "bad"), "clusters": ("v1", "2", None)}
    assert said(conversation) == dict.fromkeys(SIDECAR_TYPES, ("v1", "1", None)) | refused


def test_refusing_something_nameless_is_said_by_all_types_of_the_answer():
    conversation = Conversation()
    conversation.received(answer("v1"))
    conversation.accept()
    conversation.received(answer("v2", ["routes", "clusters"]))
    conversation.refuse("?", "bad")
    assert {kind for kind, (_, _, error) in said(conversation).items() if error} == {"routes", "clusters"}


def test_what_is_in_force_is_no_error_any_more():
    conversation = Conversation()
    conversation.received(answer("v1"))
    conversation.accept()
    conversation.received(answer("v2", ["routes", "clusters"], "2"))
    conversation.refuse("?", "bad")
    conversation.received(answer("v3", ["clusters"], "3"))  # the routes are again what they were
    conversation.accept()
    assert {error for _, _, error in said(conversation).values()} == {None}
