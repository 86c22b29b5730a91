"""`devmesh`: resolve settings, call one function, print."""

from __future__ import annotations

import sys
from typing import Any

import typer

from devmesh.cli import completion, fault, inspect, lifecycle, manifest, output, resources, traces
from devmesh.errors import DevmeshError, UsageError

# Typer carries a Click of its own, whose exceptions are not those of the `click` package and have no public name: a usage error's parent.
ClickException: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="devmesh",
    help="A service mesh for one machine: your compose file, your Istio YAML.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
lifecycle.register(app)
resources.register(app)
inspect.register(app)
completion.register(app)
app.add_typer(fault.app, name="fault")
app.add_typer(manifest.app, name="manifest")
app.add_typer(traces.app, name="traces")


def _usage(problem: Any) -> UsageError:
    """Click's words in our shape."""
    context = problem.ctx
    return UsageError(problem.format_message(), f"{context.command_path if context else 'devmesh'} --help")


def main() -> None:
    """Exit status: 0 done, 1 yours to mend, 2 usage, 70 ours."""
    try:
        status = app(prog_name="devmesh", standalone_mode=False)
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


if __name__ == "__main__":
    main()
