"""Which engine is asked and what is said when it cannot be; the engine's own JSON as values."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from docker.errors import APIError, DockerException, NotFound

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.engine import PROJECT_LABEL, SERVICE_LABEL, Engine, endpoint, no_engine, reaching


class Answers:
    """The SDK's client, with what it answers."""

    def __init__(self, **answers):
        self._answers = answers
        self.containers = self.networks = self

    def list(self, **_):
        return [type("One", (), {"attrs": attributes})() for attributes in self._answers["list"]]

    def version(self):
        return {"Version": self._answers["version"]}

    def info(self):
        return {"SecurityOptions": self._answers["options"]}


def test_docker_host_decides_over_the_context():
    assert endpoint({"DOCKER_HOST": "unix:///x.sock"}) == "unix:///x.sock"


def test_an_engine_that_is_not_there_is_an_error_with_what_to_do(tmp_path):
    with pytest.raises(DevmeshError, match="no Docker engine answers at unix://") as caught:
        Engine.connect({"DOCKER_HOST": f"unix://{tmp_path / 'none.sock'}"})
    assert caught.value.hint == "start Docker, or devmesh up --runtime local runs plain processes instead"


def test_a_socket_that_one_may_not_use_is_told_from_none():
    error = no_engine("unix:///var/run/docker.sock", PermissionError(13, "Permission denied"))
    assert error.message == "no permission to use the Docker engine at unix:///var/run/docker.sock"
    assert "usermod -aG docker" in (error.hint or "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotFound("x", explanation="no such container"), "has no such thing: no such container"),
        (APIError("x", explanation="port is allocated"), "refuses: port is allocated"),
        (DockerException("gone"), "does not answer: gone"),
    ],
)
def test_what_the_engine_says_becomes_an_error_of_ours(error, words):
    with pytest.raises(DevmeshError, match=words), reaching():
        raise error


@pytest.mark.parametrize(("text", "version"), [("20.10.24+dfsg1", (20, 10)), ("25.0.3", (25, 0)), ("28.0.0-rc.1", (28, 0))])
def test_versions_compare(text, version):
    assert Engine(Answers(version=text)).version == version


@pytest.mark.parametrize(
    ("options", "maps"), [(["name=seccomp"], False), (["name=rootless"], True), (["name=userns"], True), (None, False)]
)
def test_engines_where_uids_differ_are_known(options, maps):
    assert Engine(Answers(options=options)).maps_users is maps


def test_a_command_run_beside_a_service_is_not_taken_for_it():
    def attributes(name: str, one_off: str):
        labels = {SERVICE_LABEL: "web", "com.docker.compose.oneoff": one_off}
        rest = {"Config": {"Labels": labels}, "HostConfig": {}, "NetworkSettings": {}}
        return {"Id": name, "Name": f"/{name}", "State": {"Status": "exited"}, **rest}

    found = Engine(Answers(list=[attributes("shop-web-1", "False"), attributes("shop-web-run-9a55", "True")])).containers("shop")
    assert [one.name for one in found] == ["shop-web-1"]


def test_containers_and_networks_are_read():
    runs = [{"ExitCode": 1, "Output": "no disk"}, {"ExitCode": 0, "Output": "fine\n"}]
    health = {"Status": "healthy", "FailingStreak": 0, "Log": runs}
    state = {"Status": "running", "Health": health, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z", "Error": ""}
    found = Engine(
        Answers(
            list=[
                {
                    "Id": "1",
                    "Name": "/shop-web-1",
                    "State": state,
                    "RestartCount": 2,
                    "Config": {"Labels": {SERVICE_LABEL: "web"}},
                    "HostConfig": {"NetworkMode": "shop_default"},
                    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "81/tcp": None}},
                }
            ]
        )
    ).containers("shop")
    assert (found[0].service, found[0].ready, found[0].restarts, found[0].published) == ("web", True, 2, {"80/tcp": 8080})
    assert (found[0].failures, found[0].check_output) == (0, "fine")
    network = {
        "Name": "shop_default",
        "Labels": {PROJECT_LABEL: "shop"},
        "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
        "Containers": {"1": {"IPv4Address": "10.9.0.2/24"}},
    }
    (one,) = Engine(Answers(list=[network])).networks()
    assert (one.project, one.subnets, one.gateway) == ("shop", (IPv4Network("10.9.0.0/24"),), IPv4Address("10.9.0.1"))
    assert one.used == {IPv4Address("10.9.0.2")}
