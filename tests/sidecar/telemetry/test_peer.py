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
    ("value", "expected", "why"),
    [
        (header({"WORKLOAD_NAME": "w", "PLATFORM_METADATA": {"a": "b"}}), PeerLabels(workload="w"), "unknown keys are passed over"),
        (header({"LABELS": {"app": "a"}}), PeerLabels(app="a"), "labels may be few"),
        (header({}), UNKNOWN, "nothing is nobody"),
        (b"", UNKNOWN, "an empty header"),
        (b"not base64!", UNKNOWN, "no base64"),
        (base64.b64encode(b"\xff\xff\xff"), UNKNOWN, "no message"),
        (base64.b64encode(b"\x0a\x02\x0a\x00"), UNKNOWN, "an entry without a value"),
        (header({"WORKLOAD_NAME": 5}), UNKNOWN, "a number where a name belongs"),
        (header({"WORKLOAD_NAME": "w" * LONGEST}), UNKNOWN, "more than any real peer says"),
        (base64.b64encode(b"\xff" * 3000), UNKNOWN, "bytes without end"),
    ],
)
def test_whatever_a_client_sends_is_read_or_unknown(value, expected, why):
    assert decode(value) == expected, why
