"""Addons as processes of this machine: which binary, which port, what it is started with."""

import os
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from devmesh.errors import DevmeshError
from devmesh.runtimes.claims import PortClaims
from devmesh.runtimes.local.addons import Addon, all_answer, answers, command, environment, find, plan_addons
from devmesh.runtimes.local.plan import bind_preferring, port_of


def addon(name, binary="/usr/bin/x", port=9090):
    with socket.socket() as held:
        pass
    return Addon(name, Path(binary), Path("/mesh") / name, port, held)


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("prometheus", "no prometheus on PATH", "apt-get install prometheus"),
        ("grafana", "no grafana or grafana-server on PATH", "--runtime docker"),
    ],
)
def test_a_missing_binary_is_named_with_where_it_comes_from(name, words, hint):
    with pytest.raises(DevmeshError, match=words) as caught:
        find([name], lambda _: None)
    assert hint in caught.value.hint


def test_the_binary_on_path_is_used_and_grafanas_old_name_too():
    assert find(["grafana"], {"grafana-server": "/sbin/grafana-server"}.get) == {"grafana": Path("/sbin/grafana-server")}


def test_a_taken_port_gives_way_to_one_of_its_own(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        usual = busy.getsockname()[1]
        monkeypatch.setattr("devmesh.runtimes.local.addons.PORTS", {"prometheus": usual})
        planned = plan_addons({"prometheus": Path("/usr/bin/prometheus")}, tmp_path)["prometheus"]
    assert planned.port != usual
    planned.held.close()


def test_prometheus_listens_on_loopback_and_keeps_its_data_beside_its_settings():
    assert command(addon("prometheus", "/usr/bin/prometheus", 9091)) == [
        "/usr/bin/prometheus",
        "--config.file=/mesh/prometheus/prometheus.yml",
        "--storage.tsdb.path=/mesh/prometheus/data",
        "--storage.tsdb.retention.time=2d",
        "--web.listen-address=127.0.0.1:9091",
    ]


def test_grafana_is_told_by_variables_and_opens_to_viewers_on_loopback_only():
    told = environment(addon("grafana", port=3000), {"PATH": "/bin"})
    assert told["PATH"] == "/bin"
    assert (told["GF_SERVER_HTTP_ADDR"], told["GF_SERVER_HTTP_PORT"], told["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("127.0.0.1", "3000", "Viewer")
    assert told["GF_AUTH_BASIC_ENABLED"] == "false"


def test_grafanas_home_is_beside_its_bin_or_its_packages(tmp_path):
    (tmp_path / "public").mkdir()
    (tmp_path / "bin").mkdir()
    binary = tmp_path / "bin" / "grafana"
    binary.touch()
    assert command(addon("grafana", str(binary))) == [str(binary), "server", "--homepath", str(tmp_path)]
    assert command(addon("grafana", "/usr/sbin/grafana-server")) == ["/usr/sbin/grafana-server", "--homepath", "/usr/share/grafana"]


async def test_an_addon_is_waited_for_until_it_says_it_is_ready(tmp_path):
    answers = iter([503, 503, 200])

    async def ready(_):
        return web.Response(status=next(answers))

    app = web.Application()
    app.router.add_get("/-/ready", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        await all_answer({"prometheus": addon("prometheus", port=runner.addresses[0][1])}, lambda _: False, lambda name: tmp_path / name)
    finally:
        await runner.cleanup()
    assert next(answers, None) is None


async def test_an_addon_that_does_not_become_ready_is_named_with_its_last_lines(tmp_path):
    (tmp_path / "prometheus").write_text("it said this\n")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        lost = addon("prometheus", port=unused.getsockname()[1])
        with pytest.raises(DevmeshError, match="addon prometheus does not become ready; its last lines:\nit said this"):
            await all_answer({"prometheus": lost}, lambda _: True, lambda name: tmp_path / name)


def test_its_usual_port_is_no_other_meshs_until_it_starts(monkeypatch, tmp_path):
    with PortClaims() as claims:
        usual = claims.prefer(0)  # no mesh beside this test takes it
        monkeypatch.setattr("devmesh.runtimes.claims.PREFIX", f"test-{os.getpid()}")
        monkeypatch.setattr("devmesh.runtimes.local.addons.PORTS", {"prometheus": usual})
        planned = plan_addons({"prometheus": Path("prometheus")}, tmp_path)["prometheus"]
        assert planned.port == usual
        with planned.held, bind_preferring("127.0.0.1", usual) as other:
            assert port_of(other) != usual


async def test_whoever_has_its_port_and_never_answers_is_not_taken_for_it():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with aiohttp.ClientSession() as session:
            assert not await answers(session, addon("prometheus", port=silent.getsockname()[1]))
