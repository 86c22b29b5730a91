"""`devmesh profile` prints what istioctl's users expect of it."""

import json

import pytest
from ruamel.yaml import YAML

from devmesh.cli.profile import flags
from tests.cli.test_application import devmesh


def test_the_profiles_are_listed():
    done = devmesh("profile", "list")
    assert done.stdout.splitlines() == [
        "Istio configuration profiles:",
        *(f"    {name}" for name in ("default", "demo", "empty", "minimal", "remote")),
    ]


def test_a_dump_is_the_merged_operator_and_can_be_given_back(tmp_path):
    done = devmesh("profile", "dump", "minimal", "--set", "meshConfig.accessLogFile=/dev/stdout")
    document = YAML(typ="safe").load(done.stdout)
    assert document["spec"]["components"]["ingressGateways"] == [{"enabled": False, "name": "istio-ingressgateway"}]
    assert document["spec"]["meshConfig"] == {"accessLogFile": "/dev/stdout"}
    (tmp_path / "again.yaml").write_text(done.stdout)
    again = devmesh("profile", "dump", "-f", str(tmp_path / "again.yaml"))
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_a_dump_as_json_and_below_a_path():
    assert json.loads(devmesh("profile", "dump", "demo", "-o", "json", "-p", "values.pilot").stdout) == {"traceSampling": 100}
    done = devmesh("profile", "dump", "-p", "values.nothing")
    assert (done.returncode, "nothing is set at values.nothing" in done.stderr) == (1, True)


def test_flags_are_what_set_takes():
    assert list(flags({"b": [{"on": True}], "a": {"x.y": "1", "n": 2}})) == ["a.n=2", 'a.x\\.y="1"', "b[0].on=true"]


def test_a_difference_is_shown_line_by_line_and_is_exit_status_1():
    done = devmesh("profile", "diff", "default", "demo")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "The difference between profiles:"
    assert "-    - enabled: false" in lines
    assert "+    - enabled: true" in lines
    assert "+    accessLogFile: /dev/stdout" in "\n".join(lines)
    assert devmesh("profile", "diff", "demo", "demo").stdout == "Profiles are identical\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("dump", "nope"), 2, "there is no profile 'nope'"),
        (("dump", "--running", "demo"), 2, "--running shows"),
        (("dump", "-f", "compose.yaml"), 1, "is a compose file, which holds no settings"),
        (("dump", "--running"), 1, "no mesh is up"),
        (("dump", "--set", "meshConfig.acessLogFile=x"), 2, 'did you mean "accessLogFile"?'),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, status, words):
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x}}\n")
    done = devmesh("profile", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
