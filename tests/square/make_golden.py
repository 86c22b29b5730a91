"""Asks Istio's compiler again: `python -m tests.square.make_golden [ORACLE]`."""

import sys
from contextlib import closing
from pathlib import Path

from tests.square.compilers import CASES, MESH_CASE, MESH_CONFIGS, Istio, write_golden
from tests.support.require import TOOLS

if __name__ == "__main__":
    oracle = Path(sys.argv[1]) if len(sys.argv) > 1 else TOOLS / "istio-oracle"
    for input_, mesh in [*((case, None) for case in CASES), *((MESH_CASE, mesh) for mesh in MESH_CONFIGS)]:
        with closing(Istio(oracle)) as istio:  # a process each: what the tests compare must not follow from an input before
            write_golden(mesh or input_, istio(input_, mesh))
