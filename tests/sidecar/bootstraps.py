"""Bootstrap values for tests: reviews-v1 of Bookinfo."""


def bootstrap(**changes):
    value = {
        "node": {
            "id": "sidecar~127.7.0.3~reviews-v1.default~default.svc.cluster.local",
            "cluster": "reviews.default",
            "metadata": {"NAMESPACE": "default", "LABELS": {"app": "reviews"}, "WORKLOAD_NAME": "reviews-v1", "MESH_ID": "m"},
        },
        "workload": {
            "name": "reviews-v1",
            "service": "reviews",
            "version": "v1",
            "namespace": "default",
            "ip": "127.7.0.3",
            "spiffe_id": "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
            "gateway": False,
        },
        "xds": {"url": "https://127.0.0.1:15012"},
        "snapshot": None,
        "ca": {"url": "https://127.0.0.1:15011", "root_file": "/m/root.pem", "token_file": "/m/token"},
        "sockets": [
            {"fd": 7, "role": "inbound", "address": "127.7.0.3", "port": 9080},
            {"fd": 8, "role": "published", "address": "127.0.0.1", "port": 8080, "original": "127.7.0.3:9080"},
        ],
        "dial": {"127.7.0.3:9080": "127.0.0.1:40123"},
        "telemetry": {"otlp_url": None, "access_log_file": None, "access_log_encoding": "TEXT"},
        "mesh": {"outbound_traffic_policy": "ALLOW_ANY", "forbidden_destinations": ["127.0.0.0/8"]},
    }
    return value | changes
