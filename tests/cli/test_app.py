"""The command line's first moments: an `up` that fails before its runtime is asked leaves nothing of what was begun ahead of it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import until


async def test_an_up_that_comes_to_nothing_leaves_no_process(tmp_path):
    program = "import sys; sys.argv[0] = 'devmesh'; from devmesh.cli.app import main; main()"
    environment = {**os.environ, "DEVMESH_RUNTIME": "local", "DEVMESH_TEST_MARK": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, "up"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "no compose file" in done.stderr
    assert "Traceback" not in done.stderr
    mark = f"DEVMESH_TEST_MARK={tmp_path}".encode()
    await until(lambda: not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _bytes(path)])


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
