import re

import pytest

from devmesh.ca.identity import SpiffeId
from devmesh.sidecar.bootstrap import CONTROL_PLANE, Bootstrap, BootstrapError, Listening
from tests.sidecar.bootstraps import bootstrap


def test_the_contracts_example_is_read():
    read = Bootstrap.parse(bootstrap())
    assert read.workload.spiffe_id == SpiffeId.of("default", "bookinfo-reviews")
    assert read.dial == {"127.7.0.3:9080": ("127.0.0.1", 40123)}
    assert read.sockets[1] == Listening("published", "127.0.0.1", 8080, 8, ("127.7.0.3", 9080))
    assert read.node.to_json() == bootstrap()["node"]
    assert read.xds.peer == CONTROL_PLANE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xds": None}, "either xds or snapshot"),
        ({"snapshot": "s.json"}, "either xds or snapshot"),
        ({"ca": None}, "xds needs ca"),
        ({"dial": {"127.7.0.3:9080": "40123"}}, "'40123' is not address:port"),
        ({"sockets": [{"role": "inbund", "address": "127.0.0.1", "port": 1}]}, "socket role 'inbund'"),
        ({"sockets": [{"role": "published", "address": "127.0.0.1", "port": 1}]}, "needs original"),
        ({"workload": {"name": "x"}}, "bootstrap lacks 'service'"),
        ({"node": None}, "bootstrap"),
        ({"mesh": {"forbidden_destinations": ["127.0.0.0/8", "10.0.0.0/8"]}}, "10.0.0.0/8 is not loopback"),
    ],
)
def test_a_mistake_is_named(changes, message):
    with pytest.raises(BootstrapError, match=re.escape(message)):
        Bootstrap.parse(bootstrap(**changes))


def test_a_file_that_is_not_json_is_named(tmp_path):
    (tmp_path / "bootstrap.json").write_text("{")
    with pytest.raises(BootstrapError, match=r"bootstrap\.json"):
        Bootstrap.load(tmp_path / "bootstrap.json")
