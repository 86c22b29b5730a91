"""`devmesh`. Of `up` the slowest part is begun before anything else is imported."""

from __future__ import annotations

import sys

from devmesh.runtimes.local import ahead


def main() -> None:
    """Exit status: 0 done, 1 yours to mend, 2 usage, 70 ours."""
    ahead.begin(sys.argv[1:])
    try:
        from devmesh.cli.application import main as run  # noqa: PLC0415 - beside what has just begun

        run()
    finally:
        ahead.give_up()


if __name__ == "__main__":
    main()
