import base64

import pytest
from google.protobuf.struct_pb2 import Struct

from devmesh.sidecar.telemetry.peer import LONGEST, UNKNOWN, PeerLabels, decode, encode

REVIEWS = PeerLabels("reviews-v1", "default", "reviews", "v1", "reviews", "Kubernetes")


def header(fields):
    struct = Struct()
    struct.update(fields)
    return base64.b64encode(struct.SerializeToString())


def test_the_header_is_a_struct_with_istios_keys():
    struct = Struct.FromString(base64.b64decode(encode(REVIEWS)))
    assert dict(struct) == {
        "NAME": "reviews-v1",
        "NAMESPACE": "default",
        "WORKLOAD_NAME": "reviews-v1",
        "CLUSTER_ID": "Kubernetes",
        "OWNER": "kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1",
        "LABELS": struct["LABELS"],
    }
    assert dict(struct["LABELS"]) == {
        "app": "reviews",
        "version": "v1",
        "service.istio.io/canonical-name": "reviews",
        "service.istio.io/canonical-revision": "v1",
    }


def test_our_own_header_is_read_back():
    assert decode(encode(REVIEWS)) == REVIEWS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            header({"WORKLOAD_NAME": "w", "PLATFORM_METADATA": {"a": "b"}}), PeerLabels(workload="w"), id="unknown keys are passed over"
        ),
        pytest.param(header({"LABELS": {"app": "a"}}), PeerLabels(app="a"), id="labels may be few"),
        pytest.param(header({}), UNKNOWN, id="nothing is nobody"),
        pytest.param(b"", UNKNOWN, id="an empty header"),
        pytest.param(b"not base64!", UNKNOWN, id="no base64"),
        pytest.param(base64.b64encode(b"\xff\xff\xff"), UNKNOWN, id="no message"),
        pytest.param(base64.b64encode(b"\x0a\x02\x0a\x00"), UNKNOWN, id="an entry without a value"),
        pytest.param(header({"WORKLOAD_NAME": 5}), UNKNOWN, id="a number where a name belongs"),
        pytest.param(header({"WORKLOAD_NAME": "w" * LONGEST}), UNKNOWN, id="more than any real peer says"),
        pytest.param(base64.b64encode(b"\xff" * 3000), UNKNOWN, id="bytes without end"),
    ],
)
def test_whatever_a_client_sends_is_read_or_unknown(value, expected):
    assert decode(value) == expected
