"""`devmesh manifest generate`: the project that the Docker runtime makes of a compose file."""

from __future__ import annotations

from typing import Annotated

import typer

from devmesh.cli.settings import Files, Profile, SetFlags, settings
from devmesh.mesh import Mesh

app = typer.Typer(name="manifest", help="What a mesh is made of.", no_args_is_help=True)


@app.callback()
def manifest() -> None:
    """What a mesh is made of."""


@app.command()
def generate(
    file: Files = None,
    profile: Profile = None,
    set_: SetFlags = None,
    compose_profile: Annotated[
        list[str] | None, typer.Option("--compose-profile", help="A profile of the compose file to take too.")
    ] = None,
) -> None:
    """Print the whole Compose project that `up --runtime docker` starts; the compose file itself is never changed."""
    compose, choices = settings(profile, file, set_)
    typer.echo(Mesh.of(compose).manifest({**choices.to_json(), "compose_profiles": compose_profile or []}), nl=False)
