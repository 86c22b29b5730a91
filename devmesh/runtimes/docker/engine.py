"""What is asked of the Docker engine, through its SDK."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.compose import LOCAL_HINT

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"  # "True" of what `docker compose run` makes: a command beside the service, not the service
T = TypeVar("T")
TIMEOUT = 60  # seconds; an engine that builds and pulls answers slowly


@dataclass(frozen=True, slots=True)
class Container:
    """One container as the engine last said. `started` is RFC 3339, in the engine's own clock."""

    service: str
    id: str
    name: str
    state: str  # created | running | paused | restarting | exited | ...
    health: str  # healthy | unhealthy | starting | "" when it has no check
    exit_code: int
    error: str  # why the engine could not start it
    restarts: int
    started: str
    labels: Mapping[str, str]
    network_mode: str
    restart_policy: str  # no | always | unless-stopped | on-failure
    published: Mapping[str, int]
    failures: int = 0  # of its check, in a row
    check_output: str = ""  # of its check's last run

    @property
    def ready(self) -> bool:
        return self.state == "running" and self.health in ("", "healthy")


@dataclass(frozen=True, slots=True)
class ExistingNetwork:
    name: str
    project: str
    subnets: tuple[IPv4Network, ...]
    gateway: IPv4Address | None
    used: frozenset[IPv4Address]
    internal: bool


class Engine:
    """A connection. Every method raises DevmeshError when the engine is away."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    @staticmethod
    def connect(environ: Mapping[str, str] = os.environ) -> Engine:
        """Raises DevmeshError saying why no engine can be used, with what to do."""
        url = endpoint(environ)
        client = None
        try:
            knock(url)
            client = (
                docker.from_env(timeout=TIMEOUT, environment=dict(environ))
                if environ.get("DOCKER_HOST")
                else docker.DockerClient(base_url=url, timeout=TIMEOUT)
            )
            client.ping()
        except (OSError, DockerException, requests.RequestException) as error:
            if client is not None:
                client.close()
            raise no_engine(url, error) from error
        return Engine(client)

    def close(self) -> None:
        self._client.close()

    @property
    def version(self) -> tuple[int, ...]:
        with reaching():
            return tuple(int(part) for part in str(self._client.version()["Version"]).split("+")[0].split("-")[0].split(".")[:2])

    @property
    def identity(self) -> str:
        """What no other engine has; a new one for an engine that has lost its data."""
        with reaching():
            return str(self._client.info()["ID"])

    @property
    def maps_users(self) -> bool:
        """Whether a uid inside is another outside (rootless, userns-remap), so that a file cannot be given to a container's user."""
        with reaching():
            options = self._client.info().get("SecurityOptions") or ()
        return any("name=rootless" in one or "name=userns" in one for one in options)

    def networks(self) -> list[ExistingNetwork]:
        with reaching():
            return [_network(one.attrs) for one in self._client.networks.list(greedy=True)]

    def containers(self, project: str, *labels: str) -> list[Container]:
        """A project's containers that have all of `labels` (`key=value`), without those of `docker compose run`; the engine is asked about each of them."""
        with reaching():
            filters = {"label": [f"{PROJECT_LABEL}={project}", *labels]}
            found = self._client.containers.list(all=True, filters=filters, ignore_removed=True)
        made = (_container(one.attrs) for one in found)
        return sorted((one for one in made if one.labels.get(ONE_OFF_LABEL) != "True"), key=lambda one: one.service)

    def projects_on(self, network: str) -> set[str]:
        """Compose projects that have a container on a network, running or not; none for a network that is not there."""
        with reaching():
            found = self._client.containers.list(all=True, filters={"network": network}, ignore_removed=True)
        return {project for one in found if (project := (one.labels or {}).get(PROJECT_LABEL, ""))}

    def remove_volumes(self, project: str) -> None:
        """Whatever volumes compose has made for a project, also for files that it was made from before."""
        with reaching():
            for volume in self._client.volumes.list(filters={"label": f"{PROJECT_LABEL}={project}"}):
                volume.remove()

    def has_image(self, name: str) -> bool:
        with reaching():
            try:
                self._client.images.get(name)
            except ImageNotFound:
                return False
        return True

    def with_client(self, work: Callable[[docker.DockerClient], T]) -> T:
        """Work of others on the SDK's own client."""
        with reaching():
            return work(self._client)

    def exposed_ports(self, images: Mapping[str, str]) -> dict[str, list[int]]:
        """The TCP ports that images expose, by the same keys; none for an image that is not here."""
        out = {}
        for key, name in images.items():
            with reaching(), contextlib.suppress(ImageNotFound):
                ports = self._client.images.get(name).attrs["Config"].get("ExposedPorts") or {}
                out[key] = sorted(int(port.partition("/")[0]) for port in ports if port.endswith("/tcp"))
        return out

    def events(self, project: str) -> Iterator[dict[str, Any]]:
        """The project's containers' lives from now on, until the engine goes away (an end, no error).

        Health checks make events too, several a second, that say nothing here.
        """
        filters = {"type": "container", "label": f"{PROJECT_LABEL}={project}", "event": ["start", "die", "stop"]}
        with contextlib.suppress(DockerException, requests.RequestException):
            yield from self._client.events(decode=True, filters=filters)

    def restart(self, container: str, grace: int | None = None) -> None:
        """`grace` in seconds; None: the container's own, else the engine's."""
        with reaching():
            self._client.containers.get(container).restart(**({} if grace is None else {"timeout": grace}))

    def start(self, container: str) -> None:
        with reaching():
            self._client.containers.get(container).start()

    def kill(self, container: str) -> None:
        """SIGKILL; it is dead when this returns. The engine takes that for a stop: it does not apply the restart policy."""
        with reaching():
            self._client.containers.get(container).kill()

    def pause(self, container: str) -> None:
        """Freeze every process in it."""
        with reaching():
            self._client.containers.get(container).pause()

    def unpause(self, container: str) -> None:
        with reaching():
            self._client.containers.get(container).unpause()

    def stop(self, container: str) -> None:
        with reaching():
            self._client.containers.get(container).stop()

    def exec(self, container: str, argv: Sequence[str], user: str = "") -> str:
        """Standard output of a command inside. Raises DevmeshError with its standard error when it fails."""
        with reaching():
            status, (out, err) = self._client.containers.get(container).exec_run(list(argv), user=user, demux=True)
        if status != 0:
            raise DevmeshError(
                f"{argv[0]} in {container} failed ({status}): {(err or b'').decode(errors='replace').strip()[-400:]}", "devmesh status"
            )
        return (out or b"").decode(errors="replace")

    def logs(
        self, container: str, *, stdout: bool, stderr: bool, tail: int | str, follow: bool, since: float | None = None
    ) -> Iterator[tuple[str, str]]:
        """(RFC 3339 time, line) of one container; endless with `follow`."""
        with reaching():
            chunks = self._client.containers.get(container).logs(
                stdout=stdout, stderr=stderr, tail=tail, follow=follow, stream=True, timestamps=True, since=since
            )
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(_stamped, lines)
        if rest:
            yield _stamped(rest)


def endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Where the engine is: DOCKER_HOST, else the CLI's current context."""
    if environ.get("DOCKER_HOST"):
        return str(environ["DOCKER_HOST"])
    with contextlib.suppress(DockerException, OSError, ValueError):
        context = docker.ContextAPI.get_current_context()
        if context is not None and context.Host:
            return str(context.Host).replace("http+unix:/", "unix:/")
    return "unix:///var/run/docker.sock"


def knock(url: str) -> None:
    """OSError when nobody listens at a local socket, or we may not ask: the SDK would only say so in words."""
    scheme, _, path = url.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)


def no_engine(url: str, error: Exception) -> DevmeshError:
    if isinstance(error, PermissionError):
        return DevmeshError(
            f"no permission to use the Docker engine at {url}",
            f"sudo usermod -aG docker $USER and log in again, or {LOCAL_HINT}",
        )
    return DevmeshError(f"no Docker engine answers at {url}", f"start Docker, or {LOCAL_HINT}")


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """What the engine refuses or cannot answer, as an error of ours."""
    try:
        yield
    except NotFound as error:
        raise DevmeshError(f"the Docker engine has no such thing: {error.explanation}", "devmesh status") from error
    except APIError as error:
        raise DevmeshError(f"the Docker engine refuses: {error.explanation}", "docker info says what engine it is") from error
    except (DockerException, requests.RequestException) as error:
        raise DevmeshError(f"the Docker engine does not answer: {error}", f"start it again, or {LOCAL_HINT}") from error


def _network(attributes: Mapping[str, Any]) -> ExistingNetwork:
    configs = ((attributes.get("IPAM") or {}).get("Config")) or ()
    four = [one for one in configs if one.get("Subnet") and ip_network(one["Subnet"]).version == 4]
    used = [one.get("IPv4Address", "").partition("/")[0] for one in (attributes.get("Containers") or {}).values()]
    gateway = next((one["Gateway"].partition("/")[0] for one in four if one.get("Gateway")), None)
    return ExistingNetwork(
        name=attributes["Name"],
        project=(attributes.get("Labels") or {}).get(PROJECT_LABEL, ""),
        subnets=tuple(IPv4Network(one["Subnet"]) for one in four),
        gateway=IPv4Address(gateway) if gateway else None,
        used=frozenset(IPv4Address(one) for one in used if one),
        internal=bool(attributes.get("Internal")),
    )


def _container(attributes: Mapping[str, Any]) -> Container:
    state, labels = attributes["State"], attributes["Config"]["Labels"] or {}
    ports = attributes["NetworkSettings"].get("Ports") or {}
    health = state.get("Health") or {}
    last = (health.get("Log") or [{}])[-1]
    return Container(
        service=labels.get(SERVICE_LABEL, ""),
        id=attributes["Id"],
        name=attributes["Name"].lstrip("/"),
        state=state["Status"],
        health=health.get("Status", ""),
        error=state.get("Error", ""),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(attributes.get("RestartCount") or 0),
        started=state.get("StartedAt", ""),
        labels=labels,
        network_mode=attributes["HostConfig"].get("NetworkMode", ""),
        restart_policy=(attributes["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no",
        published={port: int(bound[0]["HostPort"]) for port, bound in ports.items() if bound},
        failures=int(health.get("FailingStreak") or 0),
        check_output=str(last.get("Output") or "").strip(),
    )


def _stamped(line: bytes) -> tuple[str, str]:
    time, _, text = line.decode(errors="replace").partition(" ")
    return time, text
