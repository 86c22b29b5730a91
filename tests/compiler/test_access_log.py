"""Who logs: every filter that ends a chain, but for connections to the listener's own port; nobody without accessLogFile.

What each logs is compared with Istio's compiler in tests/square/test_mesh_config.py.
"""

import copy

import pytest

from devmesh.compiler.access_log import OPERATORS, TEXT, with_access_logs
from devmesh.compiler.world import MeshSettings


def ending(name=None):
    return {"filters": [{"name": "first", "typed_config": {}}, {"name": "last", "typed_config": {}}], **({"name": name} if name else {})}


def listeners():
    return [
        {"name": "0.0.0.0_80", "filter_chains": [ending()], "default_filter_chain": ending("PassthroughFilterChain")},
        {"name": "virtualOutbound", "filter_chains": [ending("virtualOutbound-blackhole"), ending("virtualOutbound-catchall-tcp")]},
    ]


def logging(found):
    return [
        chain.get("name")
        for listener in found
        for chain in [*listener["filter_chains"], *([listener["default_filter_chain"]] if "default_filter_chain" in listener else [])]
        if "access_log" in chain["filters"][-1]["typed_config"]
    ]


def test_without_a_file_nothing_is_logged():
    before = listeners()
    assert with_access_logs(copy.deepcopy(before), MeshSettings()) == before


def test_the_last_filter_of_each_chain_logs_but_not_of_those_that_refuse_their_own_port():
    found = with_access_logs(listeners(), MeshSettings(access_log_file="/dev/stdout"))
    assert logging(found) == [None, "PassthroughFilterChain", "virtualOutbound-catchall-tcp"]
    assert found[0]["filter_chains"][0]["filters"][0]["typed_config"] == {}


def test_what_no_chain_took_is_logged_by_the_listeners_that_catch_all():
    plain, catching = with_access_logs(listeners(), MeshSettings(access_log_file="/dev/stdout"))
    assert "access_log" not in plain
    assert catching["access_log"][0]["filter"] == {"response_flag_filter": {"flags": ["NR"]}}


def test_a_gateways_listeners_all_log_what_no_chain_took():
    found = with_access_logs(listeners(), MeshSettings(access_log_file="/dev/stdout"), gateway=True)
    assert all("access_log" in one for one in found)


@pytest.mark.parametrize(("encoding", "kind"), [("TEXT", "text_format_source"), ("JSON", "json_format")])
def test_the_format_is_istios(encoding, kind):
    found = with_access_logs(listeners(), MeshSettings(access_log_file="/dev/stdout", access_log_encoding=encoding))
    config = found[0]["filter_chains"][0]["filters"][-1]["typed_config"]["access_log"][0]["typed_config"]
    assert config["path"] == "/dev/stdout"
    assert kind in config["log_format"]
    assert TEXT.count("{}") == len(OPERATORS) == 24
