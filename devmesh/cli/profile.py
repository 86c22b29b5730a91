"""`devmesh profile list|dump|diff`: Istio's profiles as istioctl prints them."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from devmesh.cli.options import Compose, say
from devmesh.cli.settings import SetFlags
from devmesh.config.operator.files import HINT, sort_files
from devmesh.config.operator.merge import Json, steps_of
from devmesh.config.operator.profiles import ISTIO_DEFAULT, PROFILES
from devmesh.config.operator.profiles import profile as profile_of
from devmesh.config.operator.settings import choose
from devmesh.errors import DevmeshError, UsageError
from devmesh.mesh import Mesh


class DumpFormat(StrEnum):
    yaml = "yaml"
    json = "json"
    flags = "flags"


SettingsFiles = Annotated[
    list[Path] | None,
    typer.Option("-f", "--filename", help="An IstioOperator, or values of Istio's charts, over the profile. May be given again."),
]
app = typer.Typer(name="profile", help="Istio's profiles.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """The profiles that there are."""
    typer.echo("Istio configuration profiles:")
    for name in PROFILES:
        typer.echo(f"    {name}")


@app.command()
def dump(
    profile: Annotated[str | None, typer.Argument(help=f"[default: {ISTIO_DEFAULT}, or the file's]", show_default=False)] = None,
    filename: SettingsFiles = None,
    set_: SetFlags = None,
    config_path: Annotated[str, typer.Option("-p", "--config-path", help="Only what is below this path, e.g. components.pilot.")] = "",
    form: Annotated[DumpFormat, typer.Option("-o", "--output", help="yaml, json or flags (what --set would say).")] = DumpFormat.yaml,
    running: Annotated[bool, typer.Option("--running", help="The settings of the mesh that is up.")] = False,
    compose_file: Compose = None,
) -> None:
    """A profile with everything that it sets, as an IstioOperator."""
    if running and (profile or filename or set_):
        raise UsageError(
            "--running shows a mesh's settings as they are, and takes no profile, file or --set", "devmesh profile dump --running"
        )
    operator = _running(compose_file) if running else _chosen(profile, filename, set_)
    value = _below(operator["spec"], config_path) if config_path else operator
    if form is DumpFormat.flags:
        for line in flags(value if config_path else operator["spec"]):
            typer.echo(line)
    else:
        typer.echo(_text(value) if form is DumpFormat.yaml else json.dumps(value, indent=2, sort_keys=True) + "\n", nl=False)


@app.command()
def diff(profile_a: str, profile_b: str) -> None:
    """What one profile sets and the other does not; exit status 1 when they differ, as with istioctl."""
    first, second = (_text(profile_of(name)) for name in (profile_a, profile_b))
    if profile_a == profile_b:
        typer.echo("Profiles are identical")
        return
    typer.echo("The difference between profiles:")
    for line in difflib.ndiff(first.splitlines(), second.splitlines()):
        if not line.startswith("?"):
            typer.echo(line[0] + line[2:])
    raise typer.Exit(1)


def _chosen(profile: str | None, files: list[Path] | None, flags_: list[str] | None) -> Json:
    compose, given = sort_files(files or ())
    if compose is not None:
        raise DevmeshError(f"{compose} is a compose file, which holds no settings", HINT)
    choices = choose(profile, given, flags_ or (), ISTIO_DEFAULT)
    say(choices.diagnostics)
    return dict(choices.operator)


def _running(compose_file: Path | None) -> Json:
    kept = Mesh.of(compose_file).state().get("settings", {}).get("operator")
    if kept is None:
        raise DevmeshError("this mesh was brought up by a devmesh that kept no settings", "devmesh down, then devmesh up")
    return dict(kept)


def _below(spec: Mapping[str, Any], path: str) -> Any:
    """What stands at a path, as istioctl's own paths name it."""
    value: Any = spec
    for step in steps_of(path):
        try:
            value = next(one for one in value if str(one.get(step[0])) == step[1]) if isinstance(step, tuple) else value[step]
        except (KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
            raise DevmeshError(f"nothing is set at {path}", "devmesh profile dump shows what is") from error
    return value


def _text(value: Any) -> str:
    """YAML as istioctl prints it: keys sorted, lists not indented."""
    if not isinstance(value, dict | list):
        return json.dumps(value) + "\n"
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    out = io.StringIO()
    yaml.dump(json.loads(json.dumps(value, sort_keys=True)), out)
    return out.getvalue()


def flags(value: Any, path: str = "") -> Iterator[str]:
    """`path="text"`, `path=true`: one line a value."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            name = key.replace(".", "\\.")
            yield from flags(value[key], f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from flags(one, f"{path}[{index}]")
    else:
        yield f"{path}={json.dumps(value)}"
