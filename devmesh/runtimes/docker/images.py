"""The one list of images (compose/images.yaml), and having them on the engine: looked for, pulled with progress, or a clear error."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, ImageNotFound
from ruamel.yaml import YAML

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.compose import NO_SPACE, SPACE_HINT
from devmesh.runtimes.packaged import compose_folder

Json = dict[str, Any]
Tell = Callable[[str, str], None]
"""Progress: (an image's reference, what happens to it now); called only when the words change."""
# What is not ours and needed in every mesh; addons come to it.
FOREIGN_ROLES = ("consul", "jaeger")
MEGABYTE = 1_000_000
# A registry that keeps a connection and sends nothing holds the engine for ever; between two events an engine may check a big layer's sum.
SILENT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its role (`consul`, `jaeger`, ...); `variable` is the environment variable that exchanges it."""

    role: str
    reference: str
    variable: str
    overridden: bool

    @property
    def hint(self) -> str:
        return f"set {self.variable} to an image that you have, or run without images: devmesh up --runtime local"


def image(role: str, environment: Mapping[str, str] = os.environ) -> Image:
    """The image of a role: its override, else its pinned tag."""
    listed = YAML(typ="safe").load((compose_folder() / "images.yaml").read_text())[role]
    override = environment.get(listed["override"], "")
    return Image(role, override or listed["image"], listed["override"], overridden=bool(override))


def image_names(config: Mapping[str, Any]) -> dict[str, str]:
    """The image of each service of a normalised compose file; compose's own default for one that is built."""
    return {name: service.get("image") or f"{config['name']}-{name}" for name, service in config["services"].items()}


def present(client: docker.DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def ensure(client: docker.DockerClient, images: Iterable[Image], tell: Tell, silent: float = SILENT_SECONDS) -> None:
    """Pull what the engine has not; raises DevmeshError naming the image, the reason and its override."""
    for one in images:
        if not present(client, one.reference):
            pull(client, one, tell, silent)


def pull(client: docker.DockerClient, one: Image, tell: Tell, silent: float = SILENT_SECONDS) -> None:
    """Raises DevmeshError when the image is not whole on the engine afterwards, or nothing of it came for `silent` seconds."""
    progress = PullProgress()
    said = ""
    try:
        for event in within(silent, client.api.pull(*_name_and_tag(one.reference), stream=True, decode=True)):
            if "error" in event:
                raise pull_error(one, event["error"], begun=progress.begun)
            progress.add(event)
            if progress.text != said:
                said = progress.text
                tell(one.reference, said)
    except APIError as error:
        raise pull_error(one, error.explanation or str(error), begun=progress.begun) from error
    except (requests.RequestException, TimeoutError) as error:
        raise pull_error(one, str(error), begun=progress.begun) from error
    # The engine ends the stream without a word when it is stopped meanwhile.
    if not present(client, one.reference):
        raise pull_error(one, "the engine stopped sending", begun=True)


def within(seconds: float, events: Iterable[Json]) -> Iterator[Json]:
    """The events, each within that time of the one before; TimeoutError for one that does not come. The SDK itself waits for ever."""
    found: queue.Queue[Json | Exception | None] = queue.Queue()

    def read() -> None:
        try:
            for event in events:
                found.put(event)
            found.put(None)
        except Exception as error:  # noqa: BLE001 - raised again by who takes it
            found.put(error)

    threading.Thread(target=read, daemon=True, name="pull").start()
    while True:
        try:
            event = found.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {seconds:g} s") from None
        if event is None:
            return
        if isinstance(event, Exception):
            raise event
        yield event


class PullProgress:
    """The engine's events of a pull, one for each layer and step, as one line."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}  # id -> bytes here, bytes of all
        self._again: set[str] = set()  # layers that were cut off, until they come again
        self.begun = False  # the engine has the list of layers; whether their bytes are reported at all is up to its rate limit

    @property
    def text(self) -> str:
        here, total = (sum(numbers) for numbers in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        cut = ", cut off: the engine tries again" if self._again else ""
        return f"pulling, {here // MEGABYTE} of {total // MEGABYTE} MB{cut}" if total >= MEGABYTE else f"pulling{cut}"

    def add(self, event: Json) -> None:
        layer, detail = event.get("id", ""), event.get("progressDetail") or {}
        self.begun |= event.get("status") in ("Pulling fs layer", "Downloading")
        if str(event.get("status")).startswith("Retrying in"):  # once a second, up to five times, each later than the one before
            self._again.add(layer)
        else:
            self._again.discard(layer)
        if event.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (detail["current"], detail["total"])
        elif event.get("status") == "Download complete" and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)


def pull_error(one: Image, reason: str, *, begun: bool) -> DevmeshError:
    named = f"{one.reference} ({one.role})"
    if NO_SPACE in reason:
        return DevmeshError(f"no space left on the engine's disk for the image {named}", SPACE_HINT)
    if begun:
        return DevmeshError(
            f"the pull of {named} stopped half-way: {reason}", f"docker pull {one.reference} goes on where it stopped; or {one.hint}"
        )
    return DevmeshError(f"the image {named} is not on the engine and cannot be pulled: {reason}", one.hint)


def _name_and_tag(reference: str) -> tuple[str, str | None]:
    """A reference without a tag means `latest` here too; the API would pull all tags. A digest stays in the name."""
    name, colon, tag = reference.rpartition(":")
    if "@" in reference:
        return reference, None
    return (name, tag) if colon and "/" not in tag else (reference, "latest")
