"""Whatever is written, reading and analysing it ends in diagnostics with a place, never in an exception."""

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from devmesh.config.analysis import analyze
from devmesh.config.kinds import KINDS
from devmesh.config.loader import load_text, load_value
from devmesh.config.topology import Topology, load_topology
from devmesh.errors import DevmeshError
from tests.config.samples import sample

DOCUMENTS = [
    {"apiVersion": f"{kind.group}/{kind.versions[0]}", "kind": kind.kind, "metadata": {"name": "a"}, "spec": sample(kind.model)}
    for kind in KINDS
    if kind.model is not None
]
SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
FEWER = settings(max_examples=60)
QUICK = settings(max_examples=200)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def judged(loaded):
    found = [*loaded.diagnostics, *analyze(loaded.resources)]
    assert all(one.where is not None and one.where.line > 0 and one.message for one in found)


@QUICK
@given(st.data())
def test_any_value_in_any_place_is_judged(data):
    document = data.draw(st.sampled_from(DOCUMENTS))
    path = data.draw(st.sampled_from(list(places(document))))
    new = changed(document, path, data.draw(VALUES))
    judged(load_value(new if isinstance(new, dict) else {}, "fuzz.yaml", lines={"": 1}))


@QUICK
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@#? \n\t0y<", max_size=40))
def test_any_text_is_judged(text):
    judged(load_text(text, "fuzz.yaml"))


COMPOSE = {
    "name": "a",
    "x-devmesh": {"namespace": "default", "resources": ["."]},
    "services": {
        "web": {
            "image": "x",
            "build": {"context": "."},
            "command": "run",
            "entrypoint": ["a"],
            "working_dir": "sub",
            "environment": ["A=1"],
            "env_file": [{"path": "a.env", "required": False}],
            "labels": {"app": "web"},
            "expose": ["80"],
            "ports": ["8080:80", {"target": 81, "published": 8081, "host_ip": "127.0.0.1", "name": "http", "app_protocol": "http"}],
            "depends_on": {"db": {"condition": "service_started"}},
            "deploy": {"replicas": 2},
            "profiles": ["p"],
            "healthcheck": {"test": ["CMD", "x"], "interval": "1s", "retries": 2},
            "x-devmesh": {
                "service": "web", "version": "v1", "namespace": "a", "serviceAccount": "b", "port": [80], "protocol": "http",
                "local": {"command": ["run"], "working_dir": ".", "environment": {"A": "1"}}, "resources": ["."],
            },
        },
        "db": {"image": "y"},
    },
}  # fmt: skip


@FEWER
@given(st.data())
def test_any_compose_file_is_a_topology_or_a_devmesh_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "compose.yaml"
    place = data.draw(st.sampled_from(list(places(COMPOSE))))
    path.write_text(json.dumps(changed(COMPOSE, place, data.draw(VALUES))))
    with contextlib.suppress(DevmeshError):
        found = load_topology(path, environ={}, profiles=["p"])
        assert Topology.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()
