"""Asks Istio's compiler again: `python -m tests.square.make_golden [ORACLE]`."""

import sys
from pathlib import Path

from tests.square.compilers import CASES, MESH_CASE, MESH_CONFIGS, istio, write_golden
from tests.support.require import TOOLS

if __name__ == "__main__":
    oracle = Path(sys.argv[1]) if len(sys.argv) > 1 else TOOLS / "istio-oracle"
    for case in CASES:
        write_golden(case, istio(case, oracle))
    for mesh in MESH_CONFIGS:
        write_golden(mesh, istio(MESH_CASE, oracle, mesh))
