"""A compose file's services as typed values; what they mean in the mesh is topology.py's business."""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devmesh.config.compose_files import Sources, needs_compose
from devmesh.config.container_keys import container_keys
from devmesh.config.dependencies import Dependency, read_dependencies
from devmesh.config.healthcheck import Healthcheck, read_healthcheck
from devmesh.config.interpolation import interpolate, parse_env_file
from devmesh.config.model import Diagnostic
from devmesh.config.schema import suggest
from devmesh.config.yaml import Document, read_documents
from devmesh.errors import DevmeshError

COMPOSE = "DM0010"
RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):)?(?:(?P<host>\d+(?:-\d+)?)?:)?(?P<inner>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp))?"
)


@dataclass(frozen=True, slots=True)
class ComposePort:
    """`host_port` None: not published; 0: any free port."""

    container_port: int
    host_port: int | None = None
    host_ip: str = "127.0.0.1"
    name: str = ""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class ComposeService:
    """`mesh` is its `x-devmesh`, as written; `command` is entrypoint and command joined, None when the image's own is meant.

    `restart` is "" where none is given. `networks` has its aliases on each; `links` are (service, the name it is called by).
    """

    name: str
    path: str
    image: str | None
    build: str | None
    command: tuple[str, ...] | None
    working_dir: str | None
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    expose: tuple[ComposePort, ...]
    ports: tuple[ComposePort, ...]
    depends_on: tuple[Dependency, ...]
    replicas: int
    restart: str
    healthcheck: Healthcheck | None
    networks: Mapping[str, tuple[str, ...]]
    container_name: str | None
    hostname: str | None
    links: tuple[tuple[str, str], ...]
    container_keys: tuple[str, ...]
    mesh: Mapping[str, Any] = field(default_factory=dict)


class Problems:
    """Collects what is wrong with one file, and raises it all at once."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.found: list[Diagnostic] = []

    def add(self, path: str, message: str, hint: str | None = None) -> None:
        self.found.append(Diagnostic("error", COMPOSE, self.sources.position(path), message, hint))

    def raise_if_any(self) -> None:
        if self.found:
            raise_diagnostics(self.found)


@dataclass(frozen=True, slots=True)
class ComposeFile:
    """`inactive` are services of profiles that nobody asked for; None where compose has left them out itself, and checked who needs them."""

    name: str
    directory: Path
    services: tuple[ComposeService, ...]
    mesh: Mapping[str, Any]
    sources: Sources
    problems: Problems
    inactive: frozenset[str] | None = frozenset()


def raise_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    found = list(diagnostics)
    if len(found) == 1:
        raise DevmeshError(f"{found[0].where}: {found[0].message}", found[0].hint or f"mend {found[0].where}")
    lines = [f"{one.where}: {one.message}" + (f" ({one.hint})" if one.hint else "") for one in found]
    raise DevmeshError("\n".join(lines), f"mend these {len(lines)} places")


Merged = Callable[[], Mapping[str, Any]]
"""Gives the whole project as `docker compose config` does: merged, interpolated, `$` written `$$`, only the services that run."""


def read_compose(path: Path, environ: Mapping[str, str], profiles: Iterable[str] = (), merged: Merged | None = None) -> ComposeFile:
    """Read one compose file. Mistakes that leave something to read are in the result's `problems`; others are a DevmeshError.

    Without `profiles` those of COMPOSE_PROFILES run, of the environment or of `.env`. `merged` is asked when the file is not the whole of the project: it includes, extends, or has an override.
    """
    document = _document(path)
    dotenv = path.parent / ".env"
    variables = (parse_env_file(dotenv.read_text(encoding="utf-8")) if dotenv.is_file() else {}) | dict(environ)
    problems = Problems(Sources(document, variables))
    apart = needs_compose(path, document.value)
    if apart and merged is None:
        problems.add("include", "include, extends and overrides are compose's to read", "docker compose config > whole.yaml")
    whole = merged() if apart and merged is not None else None
    value = interpolate(document.value if whole is None else whole, {} if whole is not None else variables, problems.add)
    if not isinstance(value, dict) or not isinstance(value.get("services"), dict) or not value["services"]:
        problems.add("services", "a compose file needs services", "begin it with `services:`")
        problems.raise_if_any()
    reader = _ServiceReader(problems, path.parent, variables)
    wanted = set(profiles) or set(variables.get("COMPOSE_PROFILES", "").replace(" ", "").split(","))
    chosen = [name for name, one in value["services"].items() if whole is not None or reader.chosen(name, one, wanted)]
    services = [reader.read(name, value["services"][name] or {}) for name in chosen]
    mesh = value.get("x-devmesh") or {}
    if not isinstance(mesh, dict):
        problems.add("x-devmesh", "x-devmesh must be a mapping")
        mesh = {}
    inactive = frozenset(value["services"].keys() - set(chosen)) if whole is None else None
    return ComposeFile(_project_name(value, path), path.parent, tuple(services), mesh, problems.sources, problems, inactive)


def _document(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DevmeshError(
            f"{path} cannot be read: {reason}", "name the compose file with -f, or run `devmesh init` to begin one"
        ) from error
    documents, diagnostics = read_documents(text, str(path), compose=True)
    if diagnostics:
        raise_diagnostics(diagnostics)
    if len(documents) != 1:
        raise DevmeshError(f"{path} must hold one YAML document, not {len(documents)}", "a compose file begins with `services:`")
    return documents[0]


def _project_name(value: Mapping[str, Any], path: Path) -> str:
    name = str(value.get("name") or path.resolve().parent.name)
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "default"


def words(value: Any, path: str, problems: Problems) -> tuple[str, ...] | None:
    """Split a command as a shell would, or take a list as it is."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    try:
        return tuple(shlex.split(str(value)))
    except ValueError as error:
        problems.add(path, f"{path} is no command line: {error}")
        return None


def pairs(value: Any, path: str, problems: Problems, variables: Mapping[str, str]) -> dict[str, str]:
    """Read a map, or a list of NAME=value; a name without a value takes devmesh's own environment's, if it has one."""
    if isinstance(value, list):
        split = (str(one).partition("=") for one in value)
        given: dict[str, Any] = {name: text if equals else None for name, equals, text in split}
    elif isinstance(value, dict):
        given = value
    else:
        if value is not None:
            problems.add(path, f"{path} must be a mapping or a list of NAME=value")
        return {}
    inherited = {name: variables.get(name) if one is None else _as_text(one) for name, one in given.items()}
    return {name: one for name, one in inherited.items() if one is not None}


class _ServiceReader:
    def __init__(self, problems: Problems, directory: Path, variables: Mapping[str, str]) -> None:
        self.problems = problems
        self.directory = directory
        self.variables = variables

    def read(self, name: str, value: Any) -> ComposeService:
        path = f"services.{name}"
        if not isinstance(value, dict):
            self.problems.add(path, f"{path} must be a mapping")
            value = {}
        mesh = value.get("x-devmesh") or {}
        if not isinstance(mesh, dict):
            self.problems.add(f"{path}.x-devmesh", f"{path}.x-devmesh must be a mapping")
            mesh = {}
        build = value.get("build")
        return ComposeService(
            name=name,
            path=path,
            image=self._text(value, path, "image"),
            build=str(build.get("context", ".")) if isinstance(build, dict) else self._text(value, path, "build"),
            command=self._command(value, path),
            working_dir=self._text(value, path, "working_dir"),
            environment=self._env_files(value.get("env_file"), path) | self._pairs(value, path, "environment"),
            labels=self._pairs(value, path, "labels"),
            expose=self._ports(value.get("expose"), f"{path}.expose", published=False),
            ports=self._ports(value.get("ports"), f"{path}.ports", published=True),
            depends_on=read_dependencies(value, path, self.problems.add),
            replicas=self._replicas(value, path),
            restart=self._restart(value, path),
            healthcheck=read_healthcheck(value.get("healthcheck"), f"{path}.healthcheck", self.problems.add),
            networks=self._networks(value, path),
            container_name=self._text(value, path, "container_name"),
            hostname=self._text(value, path, "hostname"),
            links=tuple(_link(one) for one in self._names(value.get("links"), f"{path}.links")),
            container_keys=tuple(container_keys(value)),
            mesh=mesh,
        )

    def _restart(self, value: Mapping[str, Any], path: str) -> str:
        """`deploy.restart_policy` before `restart`, as compose has it; YAML reads a bare `no` as false."""
        deploy = value.get("deploy")
        policy = deploy.get("restart_policy") if isinstance(deploy, dict) else None
        if isinstance(policy, dict) and policy.get("condition") is not None:
            return self._condition(policy, f"{path}.deploy.restart_policy")
        given = value.get("restart")
        text = "no" if given is False else str(given or "")
        if text and not RESTART.fullmatch(text):
            self.problems.add(
                f"{path}.restart", f'{path}.restart is "{text}"', suggest(text, ("always", "on-failure", "unless-stopped", "no"))
            )
            return ""
        return text

    def _condition(self, policy: Mapping[str, Any], path: str) -> str:
        conditions = {"none": "no", "on-failure": "on-failure", "any": "always"}
        given = str(policy["condition"])
        if given not in conditions:
            self.problems.add(f"{path}.condition", f'{path}.condition is "{given}"', suggest(given, tuple(conditions)))
            return ""
        most = policy.get("max_attempts")
        return f"on-failure:{self._number(most, f'{path}.max_attempts')}" if given == "on-failure" and most else conditions[given]

    def _networks(self, value: Mapping[str, Any], path: str) -> dict[str, tuple[str, ...]]:
        """With their aliases; compose's `default` for a service that names none."""
        given = value.get("networks")
        if isinstance(given, dict):
            at = f"{path}.networks"
            return {
                str(name): self._names(settings.get("aliases"), f"{at}.{name}.aliases") if isinstance(settings, dict) else ()
                for name, settings in given.items()
            } or {"default": ()}
        names = self._names(given, f"{path}.networks")
        return {} if value.get("network_mode") else dict.fromkeys(names or ("default",), ())

    def chosen(self, name: str, value: Any, wanted: set[str]) -> bool:
        """Say whether a service runs: one that names profiles does when one of them is asked for, or `*`."""
        profiles = value.get("profiles") if isinstance(value, dict) else None
        return not profiles or "*" in wanted or bool(wanted & set(self._names(profiles, f"services.{name}.profiles")))

    def _text(self, value: Mapping[str, Any], path: str, key: str) -> str | None:
        text = value.get(key)
        if text is not None and not isinstance(text, str):
            self.problems.add(f"{path}.{key}", f"{path}.{key} must be text, not {text!r}")
            return None
        return text or None

    def _pairs(self, value: Mapping[str, Any], path: str, key: str) -> dict[str, str]:
        return pairs(value.get(key), f"{path}.{key}", self.problems, self.variables)

    def _command(self, value: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
        entrypoint = words(value.get("entrypoint"), f"{path}.entrypoint", self.problems)
        command = words(value.get("command"), f"{path}.command", self.problems)
        return (*(entrypoint or ()), *(command or ())) or None

    def _env_files(self, value: Any, path: str) -> dict[str, str]:
        result: dict[str, str] = {}
        for index, one in enumerate(value if isinstance(value, list) else [value] if value else []):
            name, required = (one.get("path"), one.get("required", True)) if isinstance(one, dict) else (one, True)
            file = self.directory / str(name)
            if file.is_file():
                result |= parse_env_file(file.read_text(encoding="utf-8"))
            elif required:
                self.problems.add(f"{path}.env_file[{index}]", f"env_file {file} does not exist")
        return result

    def _names(self, value: Any, path: str) -> tuple[str, ...]:
        if isinstance(value, list | dict):
            return tuple(str(one) for one in value)
        if value is not None:
            self.problems.add(path, f"{path} must be a list of names")
        return ()

    def _replicas(self, value: Mapping[str, Any], path: str) -> int:
        deploy = value.get("deploy")
        in_deploy = deploy.get("replicas") if isinstance(deploy, dict) else None
        at, given = (f"{path}.deploy.replicas", in_deploy) if value.get("scale") is None else (f"{path}.scale", value["scale"])
        return 1 if given is None else self._number(given, at)

    def _number(self, given: Any, path: str) -> int:
        if re.fullmatch(r"[0-9]{1,6}", str(given)):
            return int(given)
        self.problems.add(path, f"{path} must be a number, not {given!r}")
        return 1

    def _ports(self, value: Any, path: str, *, published: bool) -> tuple[ComposePort, ...]:
        ports: list[ComposePort] = []
        if value is not None and not isinstance(value, list):
            self.problems.add(path, f"{path} must be a list")
            return ()
        for index, one in enumerate(value or []):
            found = _long_port(one) if isinstance(one, dict) else _short_port(str(one), published=published)
            if found is None:
                self.problems.add(
                    f"{path}[{index}]", f"{path}[{index}] is no port: {one!r}", 'write "8080:80", "80" or {target: 80, published: 8080}'
                )
            ports += found or ()
        return tuple(ports)


def _link(text: str) -> tuple[str, str]:
    target, _, name = text.partition(":")
    return target, name or target


def _as_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _short_port(text: str, *, published: bool) -> list[ComposePort] | None:
    found = _PORT.fullmatch(text)
    if not found:
        return None
    if found["protocol"] == "udp":
        return []
    inner = _numbers(found["inner"])
    host = _numbers(found["host"]) if found["host"] else [0] * len(inner)
    if len(inner) == 1 and len(host) > 1:
        host = host[:1]  # any one of them, as far as compose is concerned
    if not inner or not all(0 < one < 65536 for one in inner) or len(host) != len(inner):
        return None
    address = (found["ip"] or "127.0.0.1").strip("[]")
    return [ComposePort(one, host[index] if published else None, address) for index, one in enumerate(inner)]


def _long_port(value: Mapping[str, Any]) -> list[ComposePort] | None:
    target, published = str(value.get("target", "")), str(value.get("published") or "0").partition("-")[0]
    if not target.isdecimal() or not published.isdecimal():
        return None
    if value.get("protocol") == "udp":
        return []
    port = ComposePort(
        int(target),
        int(published),
        str(value.get("host_ip") or "127.0.0.1"),
        str(value.get("name", "")),
        str(value.get("app_protocol", "")),
    )
    return [port]
