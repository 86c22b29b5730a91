"""Data on stdout, everything else on stderr; errors name the thing, then `hint:` with the next command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from devmesh.errors import DevmeshError


class Format(StrEnum):
    table = "table"
    json = "json"
    yaml = "yaml"


err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)


def data(value: Any, form: Format) -> None:
    """Print a value as JSON or YAML."""
    if form is Format.yaml:
        from ruamel.yaml import YAML  # noqa: PLC0415 - the rare form

        yaml = YAML()
        yaml.default_flow_style = False
        yaml.dump(json.loads(json.dumps(value)), sys.stdout)
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False) -> None:
    """A table that fits the terminal; plain lines where it is no terminal, and of `wide` ones, whose names and places are copied whole."""
    if wide or not out.is_terminal:
        widths = [max(len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            sys.stdout.write("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    out.print(made)


def urls(found: dict[str, Any]) -> None:
    """The table of services and of the mesh's own servers."""
    rows = [
        (name, url if url != "mtls only" else f"mtls only (devmesh curl SERVICE http://{name})") for name, url in found["services"].items()
    ]
    rows += [(f"{name} (mesh)", url) for name, url in found["mesh"].items()]
    table(("SERVICE", "URL"), rows)
    names = [urlsplit(url).netloc for url in found["services"].values() if url.startswith("https://") and "//127.0.0.1" not in url]
    if names:
        note(f"https names lead to the gateway here: curl --cacert CA --resolve {names[0]}:127.0.0.1 ...")


def note(message: str) -> None:
    """A line as it is: builds, apps and users write brackets too."""
    err.print(message, markup=False)


def error(problem: DevmeshError) -> None:
    err.print(f"[red bold]error:[/] {literal(problem.message)}")
    err.print(f"\nhint: {literal(problem.hint)}")


def literal(text: str) -> str:
    """Rich markup in a message is text."""
    return text.replace("[", "\\[")


def mark(value: bool) -> str:
    return "yes" if value else "no"
