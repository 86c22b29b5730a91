"""One exchange as the data path records it."""

from devmesh.sidecar.record import AttemptRecord, Direction, Record, TraceContext
from devmesh.sidecar.telemetry.spans import Workload

START = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20.123Z
CLUSTER = "outbound|9080||reviews.default.svc.cluster.local"
PRODUCTPAGE = Workload("productpage-v1", "productpage", "v1", "default", "sidecar~127.7.0.1~productpage-v1.default~default", "m1")


def outbound(**changes):
    values = {
        "method": b"GET",
        "target": b"/reviews/0?u=1",
        "authority": b"reviews:9080",
        "request_headers": [(b"host", b"reviews:9080"), (b"user-agent", b"curl/8"), (b"x-forwarded-for", b"10.0.0.9")],
        "status": 200,
        "details": "via_upstream",
        "duration": 0.0129,
        "upstream_service_time": 0.0119,
        "bytes_received": 7,
        "bytes_sent": 1234,
        "upstream_host": "127.7.0.3:9080",
        "upstream_cluster": CLUSTER,
        "upstream_local": "127.0.0.1:5000",
        "downstream_local": "240.240.0.1:9080",
        "downstream_remote": "127.0.0.1:4000",
        "route_name": "default",
        "request_id": b"b71d7bb7-6c6e-4d53-99a1-d2258423b650",
        "trace": TraceContext(b"\x01" * 16, b"\x02" * 8, b"\x03" * 8, sampled=True),
        "attempts": [attempt()],
    }
    out = Record(Direction.OUTBOUND, START)
    for name, value in {**values, **changes}.items():
        setattr(out, name, value)
    return out


def inbound(**changes):
    found = outbound(attempts=[], **{"upstream_cluster": "inbound|9080||", **changes})
    found.direction = Direction.INBOUND
    return found


def attempt(**changes):
    values = {"endpoint": "127.7.0.3:9080", "cluster": CLUSTER, "status": 200, "span_id": b"\x04" * 8}
    return AttemptRecord(START + 1000, START + 5000, **{**values, **changes})
