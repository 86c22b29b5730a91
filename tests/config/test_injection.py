"""What `fault inject` refuses, with the words for it, and what it writes."""

import pytest

from devmesh.config.devmesh_v1 import Fault
from devmesh.config.injection import FaultRequest, called, check_names, check_usage, fault_document, fault_state
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError, UsageError


def workload(name, service, **more):
    return {"name": name, "namespace": "default", "ip": "10.0.0.1", "service": service, "version": "v1", **more}


TOPOLOGY = Topology.from_json(
    {
        "workloads": [
            workload("web-v1", "web"),
            workload("api-v1", "api"),
            workload("api-v2", "api"),
            workload("gate", "gate", gateway=True),
        ]
    }
)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (FaultRequest("web"), "a fault needs --abort STATUS, --delay DURATION, --pause, --kill or --partition A B"),
        (FaultRequest("web", kill=True, pause=True), "--pause and --kill do not go together"),
        (FaultRequest("web", 503, partition="api"), "--partition and --abort do not go together"),
        (FaultRequest("web", delay=0.1, kill=True), "--kill and --delay do not go together: --kill is a whole fault"),
        (FaultRequest("web", percent=50, pause=True), "--percent chooses requests, and --pause knows of none: it is for all of web"),
        (FaultRequest("web", caller="api", kill=True), "--from chooses requests"),
        (FaultRequest("web", path="/", kill=True), "--path chooses requests"),
        (FaultRequest("web", headers=(("a", "b"),), partition="api"), "--header chooses requests"),
        (FaultRequest("web", kill=True, lifetime=3), "there is nothing that --for could end"),
        (FaultRequest("web", 99), "--abort 99 is no HTTP status from 200 to 599"),
        (FaultRequest("web", 503, percent=0), "--percent 0 is not between 0 and 100"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_options_that_do_not_go_together_are_usage_errors(request_, words):
    with pytest.raises(UsageError) as caught:
        check_usage(request_)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "request_",
    [
        FaultRequest("web", 503, 0.3, 20, "api", "/a", (("a", "b"),), 60),
        FaultRequest("web", pause=True, lifetime=60),
        FaultRequest("web", partition="api", lifetime=60),
        FaultRequest("web", kill=True),
    ],
)
def test_what_goes_together_is_taken_and_is_a_valid_fault(request_):
    check_usage(request_)
    document = fault_document("f1", request_, 1000.0, 1)
    spec = Fault.model_validate(document["spec"])
    assert (spec.id, spec.target, spec.until) == ("f1", "web", 1060.0 if request_.lifetime else None)
    assert (spec.partition, bool(spec.pause), bool(spec.kill)) == (request_.partition, request_.pause, request_.kill)


@pytest.mark.parametrize(
    ("request_", "words", "hint"),
    [
        (FaultRequest("wib", 503), "unknown target 'wib'; there are api, web", "did you mean web?"),
        (FaultRequest("api-v1", 503), "unknown target 'api-v1'", "did you mean api?"),
        (FaultRequest("web", 503, caller="nobody"), "unknown caller 'nobody'", "devmesh status"),
        (FaultRequest("api-v3", pause=True), "unknown target 'api-v3'", "did you mean api-v2?"),
        (FaultRequest("gate", kill=True), "unknown target 'gate'; there are api, api-v1, api-v2, web, web-v1", "devmesh status"),
        (FaultRequest("web", partition="nobody"), "unknown target 'nobody'", "devmesh status"),
        (FaultRequest("web", partition="web"), "web-v1 is on both of web and web", "devmesh fault inject --partition api web"),
        (FaultRequest("api-v2", partition="api"), "api-v2 is on both of api-v2 and api", "devmesh fault inject --partition api web"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_names_that_this_fault_cannot_be_for_are_errors_with_what_there_is(request_, words, hint):
    with pytest.raises(DevmeshError) as caught:
        check_names(request_, TOPOLOGY)
    assert words in caught.value.message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (FaultRequest("api", 503), ["api-v1", "api-v2"]),
        (FaultRequest("api-v2", pause=True), ["api-v2"]),
        (FaultRequest("api", kill=True), ["api-v1", "api-v2"]),
        (FaultRequest("gate", partition="api"), ["gate"]),
        (FaultRequest("api-v1", partition="api-v2"), ["api-v1"]),
    ],
    ids=["a service", "a workload", "a service's apps", "the gateway as a side", "two workloads of a service"],
)
def test_the_targets_workloads_are_given(request_, names):
    assert [one.name for one in check_names(request_, TOPOLOGY)] == names


def test_a_fault_is_called_by_its_id_and_by_its_sides():
    assert called({"id": "f1", "target": "web"}) == {"f1", "web"}
    assert called({"id": "f1", "target": "web", "partition": "api"}) == {"f1", "web", "api"}


@pytest.mark.parametrize(
    ("spec", "apps", "state"),
    [
        ({"abort": {}}, {"a": False}, "in force"),
        ({"kill": True}, {"a": False}, "done"),
        ({"pause": True}, {"a": True, "b": True}, "in force"),
        ({"pause": True}, {"c": False, "a": True, "b": False}, "not yet at b, c"),
    ],
)
def test_a_faults_state(spec, apps, state):
    assert fault_state(spec, apps) == state
