"""What holds for the whole tree: modules import alone and are tested, lock files hold no addresses, the README's commands exist."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import kept_together

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in (ROOT / "devmesh").rglob("*.py")
)


# Each argument is a layer, lowest first: its modules alone, over those below, which the import contracts let know nothing of it.
IMPORT_ALONE = """
import importlib, sys, os
import aiohttp.web, consul.aio, cryptography.x509, docker, orjson, pydantic, rich, ruamel.yaml, typer  # others' code, once for all
failed = []
for layer in sys.argv[1:]:
    for name in layer.split():
        pid = os.fork()
        if pid == 0:
            try:
                importlib.import_module(name)
            except BaseException as error:
                print(name, repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        failed += [name] * (os.waitpid(pid, 0)[1] != 0)
    if failed:
        sys.exit(1)
    for name in layer.split():
        importlib.import_module(name)
"""


def layers(modules: list[str]) -> list[str]:
    """The modules of each layer, lowest first; the package itself is below all."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = [set(re.findall(r"\w+", layer)) for contract in contracts for layer in contract.get("layers", ())]
    out = [[one for one in modules if one.partition(".")[2].partition(".")[0] in room] for room in ({""}, *reversed(rooms))]
    assert sorted(itertools.chain(*out)) == sorted(modules), "a module without a layer"
    return [" ".join(one) for one in out]


def import_alone(layers: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", IMPORT_ALONE, *layers], capture_output=True, text=True, check=False, cwd=folder)


def test_every_module_imports_alone():
    done = import_alone(layers(MODULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cycle_that_one_order_of_imports_hides_is_found(tmp_path):
    (tmp_path / "first.py").write_text("import second\nfrom second import name\n")
    (tmp_path / "second.py").write_text("name = 1\nimport first\n")
    (tmp_path / "third.py").write_text("import fourth\nother = 1\n")
    (tmp_path / "fourth.py").write_text("import third\nname = third.other\n")
    done = import_alone(["", "first second third fourth"], tmp_path)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["third"]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-oracles.lock", "requirements-compile.lock"])
def test_lock_files_pin_with_hashes_and_hold_no_address(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    for requirement in re.findall(r"^[a-z0-9].*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL):
        assert "==" in requirement
        assert "--hash=sha256:" in requirement


def test_the_readme_names_the_two_commands_that_set_a_machine_up():
    readme = (ROOT / "README.md").read_text()
    assert "./task up" in readme
    assert "./task test" in readme


def test_the_sidecar_starts_without_the_control_planes_libraries():
    program = "import devmesh.sidecar.__main__, sys; print([m for m in ('pydantic', 'google.protobuf', 'consul', 'opentelemetry') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("lacks", "words", "hint"),
    [
        ("import venv, ensurepip", "has no venv module", "hint: apt-get install python3-venv"),
        ("import sys; sys.exit(sys.version_info", "devmesh needs Python 3.11 or newer", "hint: install it, or name one: PYTHON="),
    ],
)
def test_a_python_that_cannot_set_up_is_named_with_what_to_do(tmp_path, lacks, words, hint):
    shutil.copy(ROOT / "task", tmp_path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in "{lacks}"*) exit 1;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["./task", "up"], cwd=tmp_path, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert f"\n\n{hint}" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("nodeid", "where"),
    [
        ("tests/e2e/test_life.py::test_up_twice_says_so[docker]", "docker"),
        ("tests/e2e/test_bookinfo.py::test_traffic_shifts[namespace-reviews-50-v3-expected0]", "namespace"),
        ("tests/e2e/test_life.py::test_a_killed_part_is_restarted[details-v1-proxy]", "proxy"),
        ("tests/e2e/test_docker.py::test_only_tls_is_on_the_wire_between_pods[api-8000]", "tests/e2e/test_docker.py"),
        ("tests/cli/test_app.py::test_a_shell_completes[docker]", "tests/cli/test_app.py"),
    ],
)
def test_tests_on_one_kind_of_mesh_go_to_one_worker_and_others_with_their_file(nodeid, where):
    assert kept_together(nodeid) == where
