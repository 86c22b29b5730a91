"""`devmesh`: resolve settings, call one function, print."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer

from devmesh.cli import output
from devmesh.errors import DevmeshError, UsageError
from devmesh.launch import without_authorities

# Typer carries a Click of its own, whose exceptions are not those of the `click` package and have no public name: a usage error's parent.
ClickException: type[Any] = typer.BadParameter.__mro__[2]
# Where each command is: only what was asked for is imported. What is not listed (--help, a typing error, completion) imports all.
COMMANDS = {
    "lifecycle": ("up", "down", "logs", "restart", "stop", "start", "version"),
    "status": ("status", "ps", "wait"),
    "resources": ("apply", "get", "delete", "analyze", "compile"),
    "inspect": ("proxy-status", "proxy-config", "curl", "exec", "shell", "dashboard"),
    "completion": ("completion",),
    "fault": ("fault",),
    "manifest": ("manifest",),
    "profile": ("profile",),
    "traces": ("traces",),
}


def application(command: str | None = None) -> typer.Typer:
    """The command line with this command, or with all of them."""
    app = typer.Typer(
        name="devmesh",
        help="A service mesh for one machine: your compose file, your Istio YAML.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # or Typer makes of an only command the whole program
    for module in [one for one, names in COMMANDS.items() if command in names] or list(COMMANDS):
        with without_authorities():  # what a command asks over HTTPS it asks with a context of its own
            found = import_module(f"devmesh.cli.{module}")
        if hasattr(found, "register"):
            found.register(app)
        else:
            app.add_typer(found.app, name=module)
    return app


def _usage(problem: Any) -> UsageError:
    """Click's words in our shape."""
    context = problem.ctx
    return UsageError(problem.format_message(), f"{context.command_path if context else 'devmesh'} --help")


def main() -> None:
    """Exit status: 0 done, 1 yours to mend, 2 usage, 70 ours."""
    try:
        command = application(sys.argv[1] if len(sys.argv) > 1 else None)
        status = command(prog_name="devmesh", standalone_mode=False)
    except DevmeshError as problem:
        output.error(problem)
        sys.exit(problem.exit_status)
    except ClickException as problem:
        if type(problem).__name__ == "NoArgsIsHelpError":
            problem.show()  # a group without a command: its help
        else:
            output.error(_usage(problem))
        sys.exit(problem.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)
