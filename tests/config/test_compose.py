import pytest

from devmesh.config.compose import ComposePort, read_compose
from devmesh.errors import DevmeshError


def services(tmp_path, text, environ=None, profiles=()):
    (tmp_path / "compose.yaml").write_text(text)
    compose = read_compose(tmp_path / "compose.yaml", environ or {}, profiles)
    compose.problems.raise_if_any()
    return {one.name: one for one in compose.services}


def failure(tmp_path, text):
    with pytest.raises(DevmeshError) as caught:
        services(tmp_path, text)
    return caught.value.message.replace(f"{tmp_path}/", ""), caught.value.hint


@pytest.mark.parametrize(
    ("port", "read"),
    [
        ('"8080:80"', [ComposePort(80, 8080)]),
        ('"80"', [ComposePort(80, 0)]),
        ("80", [ComposePort(80, 0)]),
        ('"127.0.0.1:8080:80"', [ComposePort(80, 8080)]),
        ('"0.0.0.0::80"', [ComposePort(80, 0, "0.0.0.0")]),
        ('"[::1]:8080:80/tcp"', [ComposePort(80, 8080, "::1")]),
        ('"8000-8001:80"', [ComposePort(80, 8000)]),
        ('"8000-8001:80-81"', [ComposePort(80, 8000), ComposePort(81, 8001)]),
        ('"53:53/udp"', []),
        ("{target: 80, published: '8080', name: web, app_protocol: http}", [ComposePort(80, 8080, "127.0.0.1", "web", "http")]),
        ("{target: 80}", [ComposePort(80, 0)]),
    ],
)
def test_published_ports_are_read_in_both_syntaxes(tmp_path, port, read):
    assert list(services(tmp_path, f"services: {{a: {{ports: [{port}]}}}}")["a"].ports) == read


@pytest.mark.parametrize("port", ["'a'", "'80:'", "'1:2:3'", "{published: 80}", "'99999'", "'80-82:80-81'", "'81-80:80'"])
def test_what_is_no_port_is_named_with_its_place(tmp_path, port):
    message, hint = failure(tmp_path, f"services:\n  a:\n    ports:\n    - {port}\n")
    assert message.startswith("compose.yaml:4:7: services.a.ports[0] is no port")
    assert '"8080:80"' in hint


def test_environment_comes_from_files_then_the_list_or_map_and_inherits_bare_names(tmp_path):
    (tmp_path / "a.env").write_text("A=file\nB=file\n")
    text = "services:\n  x: {env_file: a.env, environment: [B=own, HOME, NOT_SET]}\n  y: {environment: {N: 1, T: true, Q: 'yes'}}\n"
    found = services(tmp_path, text, {"HOME": "/home/me"})
    assert found["x"].environment == {"A": "file", "B": "own", "HOME": "/home/me"}
    assert found["y"].environment == {"N": "1", "T": "true", "Q": "yes"}


def test_a_dot_env_file_gives_defaults_that_the_environment_overrides(tmp_path):
    (tmp_path / ".env").write_text("TAG=file\nPORT=1\n")
    found = services(tmp_path, "services: {x: {image: 'a:${TAG}', ports: ['${PORT}']}}", {"TAG": "shell"})
    assert (found["x"].image, found["x"].ports[0].container_port) == ("a:shell", 1)


def test_commands_are_split_as_a_shell_would_and_follow_the_entrypoint(tmp_path):
    text = """\
services:
  x: {entrypoint: [python, -m], command: 'http.server "my port"'}
  y: {image: nginx}
"""
    found = services(tmp_path, text)
    assert found["x"].command == ("python", "-m", "http.server", "my port")
    assert found["y"].command is None


def test_services_of_a_profile_run_only_when_it_is_asked_for(tmp_path):
    text = "services: {a: {}, b: {profiles: [debug]}}".replace("{}", "{image: x}")
    assert list(services(tmp_path, text)) == ["a"]
    assert list(services(tmp_path, text, profiles=["debug"])) == ["a", "b"]
    assert list(services(tmp_path, text, profiles=["*"])) == ["a", "b"]


def test_composes_own_variable_names_profiles_unless_some_are_asked_for(tmp_path):
    text = "services: {a: {}, b: {profiles: [debug]}, c: {profiles: [site]}}".replace("{}", "{image: x}")
    assert list(services(tmp_path, text, {"COMPOSE_PROFILES": "test, debug"})) == ["a", "b"]
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=site\n")
    assert list(services(tmp_path, text)) == ["a", "c"]
    assert list(services(tmp_path, text, {"COMPOSE_PROFILES": ""})) == ["a"]
    assert list(services(tmp_path, text, profiles=["debug"])) == ["a", "b"]


def test_anchors_and_extension_fields_are_as_in_any_compose_file(tmp_path):
    text = "x-base: &base {image: x, environment: {A: 1}}\nservices: {a: {<<: *base, image: z}}\n"
    assert (services(tmp_path, text)["a"].image, services(tmp_path, text)["a"].environment) == ("z", {"A": "1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: []", "a compose file needs services"),
        ("a: 1", "a compose file needs services"),
        ("services:\n  a: 3\n", "compose.yaml:2:3: services.a must be a mapping"),
        ("services:\n  a: {command: 'x \"'}\n", "services.a.command is no command line: No closing quotation"),
        ("services:\n  a: {scale: many}\n", "services.a.scale must be a number, not 'many'"),
        ("services:\n  a: {extends: b}\n", "include, extends and overrides are compose's to read"),
        ("services:\n  a: {env_file: nowhere.env}\n", "nowhere.env does not exist"),
        ("services:\n  a: {image: '${TAG:?say which}'}\n", "compose.yaml:2:7: TAG is not set: say which"),
        ("services:\n\ta: 1\n", "compose.yaml:2:1: cannot be read as YAML"),
        ("services:\n  a: {image: x}\n  a: {image: y}\n", '"services.a" is given twice: first on line 2'),
        ("a: 1\n---\nb: 2\n", "must hold one YAML document, not 2"),
        ("include: [x]\nservices: {a: {image: x}}\n", "include, extends and overrides are compose's to read"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, text, message):
    assert message in failure(tmp_path, text)[0]


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(DevmeshError, match="No such file") as caught:
        read_compose(tmp_path / "compose.yaml", {})
    assert "-f" in caught.value.hint


def test_the_project_name_is_composes(tmp_path):
    (tmp_path / "My.Project").mkdir()
    (tmp_path / "My.Project" / "compose.yaml").write_text("services: {a: {image: x}}")
    assert read_compose(tmp_path / "My.Project" / "compose.yaml", {}).name == "myproject"


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ("{}", ""),
        ("{restart: no}", "no"),
        ("{restart: 'no'}", "no"),
        ("{restart: unless-stopped}", "unless-stopped"),
        ("{restart: 'on-failure:3'}", "on-failure:3"),
        ("{restart: always, deploy: {restart_policy: {condition: none}}}", "no"),
        ("{deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}}", "on-failure:4"),
        ("{deploy: {restart_policy: {condition: any, max_attempts: 4}}}", "always"),
        ("{restart: always, deploy: {restart_policy: {delay: 5s}}}", "always"),
    ],
)
def test_the_restart_policy_is_that_of_deploy_then_the_services_own(tmp_path, written, policy):
    assert services(tmp_path, f"services: {{a: {written}}}")["a"].restart == policy


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("restart: sometimes", "compose.yaml:4:5: services.a.restart is"),
        ("deploy: {restart_policy: {condition: never}}", "services.a.deploy.restart_policy.condition is"),
    ],
)
def test_an_unknown_restart_policy_is_named_with_its_place(tmp_path, written, place):
    message, _ = failure(tmp_path, f"services:\n  a:\n    image: x\n    {written}\n")
    assert place in message
