"""Resources against the official descriptors: what Istio and we compile passes, what no proxy could read does not."""

import copy
import subprocess
import sys

import pytest

from devmesh.compiler import World, compile_proxy
from devmesh.config.loader import load_text
from devmesh.xds import schema
from devmesh.xds.rest import TYPE_URLS
from tests.square import compilers

ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
LISTENER = {
    "name": "0.0.0.0_80",
    "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
    "listener_filters_timeout": "0.1s",
    "filter_chains": [{"filters": [{"name": "router", "typed_config": {"@type": ROUTER}}]}],
}


@pytest.mark.parametrize("case", compilers.CASES, ids=lambda case: case.stem)
def test_what_we_compile_is_valid(case):
    topology = compilers.topology(compilers.topology_file(case))
    world = World.from_topology(topology, load_text(case.read_text(), case.name).resources)
    for workload in compilers.workloads(case):
        assert schema.invalid(compile_proxy(world, workload).snapshot) == []


def test_what_istio_compiles_is_valid():
    for case in compilers.CASES[::10]:
        for xds in compilers.golden(case).values():
            for kind, resources in xds.items():
                for resource in resources:
                    schema.validate(TYPE_URLS[kind], resource)


@pytest.mark.parametrize(
    ("path", "value", "place", "reason"),
    [
        (("nope",), 1, "Listener", 'no field named "nope"'),
        (
            ("filter_chains", 0, "filters", 0, "typed_config", "nope"),
            1,
            "Listener.filter_chains[0].filters[0].typed_config",
            "no field named",
        ),
        (("filter_chains", 0, "filters", 0, "typed_config", "@type"), "type.googleapis.com/a.B", "filter_chains[0].filters[0]", "a.B"),
        (("traffic_direction",), "SIDEWAYS", "traffic_direction", "Invalid enum value SIDEWAYS"),
        (("bind_to_port",), "yes", "bind_to_port", "true or false"),
        (("address", "socket_address", "port_value"), -1, "port_value", "out of range"),
        (("listener_filters_timeout",), "15", "listener_filters_timeout", "must end with letter"),
        (("name",), 5, "name", "expected string"),
        (("bindToPort",), True, "Listener.bindToPort", 'name is "bind_to_port"'),
        (("filter_chains", 0, "filterChainMatch"), {}, "Listener.filter_chains[0].filterChainMatch", '"filter_chain_match"'),
        (
            ("filter_chains", 0, "filters", 0, "typed_config", "startChildSpan"),
            True,
            "Listener.filter_chains[0].filters[0].typed_config.startChildSpan",
            '"start_child_span"',
        ),
        (
            ("metadata",),
            {"typed_filter_metadata": {"a": {"@type": ROUTER, "startChildSpan": True}}},
            "Listener.metadata.typed_filter_metadata[a].startChildSpan",
            '"start_child_span"',
        ),
    ],
)
def test_a_mistake_is_refused_with_its_place(path, value, place, reason):
    broken = copy.deepcopy(LISTENER)
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    schema.validate(TYPE_URLS["listeners"], LISTENER)
    with pytest.raises(schema.SchemaError) as caught:
        schema.validate(TYPE_URLS["listeners"], broken)
    assert place in caught.value.path
    assert reason in caught.value.reason
    assert str(broken["name"]) in str(caught.value)


def test_keys_of_maps_and_structs_are_written_as_one_likes():
    metadata = {"filter_metadata": {"someThing": {"tlsMode": "istio", "deepDown": [{"aB": 1}]}}}
    schema.validate(TYPE_URLS["listeners"], LISTENER | {"metadata": metadata})


def test_a_type_that_nobody_knows_is_refused():
    with pytest.raises(schema.SchemaError, match="not known"):
        schema.validate("type.googleapis.com/a.B", {"name": "x"})


def test_a_changed_resource_is_looked_at_again_under_the_same_name():
    schema.validate(TYPE_URLS["clusters"], {"name": "again"})
    with pytest.raises(schema.SchemaError):
        schema.validate(TYPE_URLS["clusters"], {"name": "again", "nope": 1})


def test_a_number_is_no_truth_value_although_one_equals_true():
    schema.validate(TYPE_URLS["listeners"], LISTENER | {"bind_to_port": True})
    with pytest.raises(schema.SchemaError):
        schema.validate(TYPE_URLS["listeners"], LISTENER | {"bind_to_port": 1})


def test_a_resource_that_changed_in_place_is_looked_at_again():
    resource = {"name": "changing"}
    schema.validate(TYPE_URLS["clusters"], resource)
    resource["nope"] = 1
    with pytest.raises(schema.SchemaError):
        schema.validate(TYPE_URLS["clusters"], resource)


def test_encoding_gives_the_same_bytes_for_the_same_resource_whatever_its_order():
    first = schema.encode(TYPE_URLS["listeners"], LISTENER)
    assert first == schema.encode(TYPE_URLS["listeners"], dict(reversed(LISTENER.items())))
    message = schema.GetMessageClass(schema.pool().FindMessageTypeByName("envoy.config.listener.v3.Listener"))()
    message.ParseFromString(first)
    assert message.address.socket_address.port_value == 80


def test_the_descriptors_stay_out_of_the_pool_that_others_use():
    code = (
        "from devmesh.xds import schema; schema.pool()\n"
        "from google.protobuf import descriptor_pool\n"
        "try: descriptor_pool.Default().FindMessageTypeByName('envoy.config.listener.v3.Listener')\n"
        "except KeyError: print('private')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "private\n"
