"""The launcher of an `up` that is about to be: started before the command line is even read, since what it imports takes longest.

It knows nothing yet and does nothing but import; when something else comes of the command it is given up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from devmesh.runtimes.local.preload import Preloading

ENGINE = Path("/var/run/docker.sock")
_begun: list[Preloading] = []


def is_likely(arguments: Sequence[str], environ: Mapping[str, str] = os.environ, engine: Path = ENGINE) -> bool:
    """Whether this command line brings a mesh up on this runtime, as far as a glance tells: a wrong guess costs time, nothing else."""
    if arguments[:1] != ["up"] or "--help" in arguments:
        return False
    asked = next((value for option, value in pairwise(arguments) if option == "--runtime"), None)
    asked = asked or next((one.partition("=")[2] for one in arguments if one.startswith("--runtime=")), None)
    runtime = asked or environ.get("DEVMESH_RUNTIME") or "auto"
    return runtime == "local" or (runtime == "auto" and "DOCKER_HOST" not in environ and not engine.exists())


def begin(arguments: Sequence[str]) -> None:
    if is_likely(arguments):
        _begun.append(Preloading())


def take() -> Preloading:
    """The one that was begun, else a new one."""
    return _begun.pop() if _begun else Preloading()


def give_up() -> None:
    while _begun:
        _begun.pop().give_up()
