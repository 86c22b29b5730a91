from devmesh.config.istio_telemetry import KINDS
from tests.config.bookinfo import load


def test_telemetry_is_known_and_said_to_do_nothing_yet():
    assert [kind for kind, _ in KINDS] == ["Telemetry"]
    (found,) = load("{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {name: a}, spec: {}}").diagnostics
    assert (found.severity, found.code) == ("warning", "DM0005")
