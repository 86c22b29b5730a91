"""What holds for the whole tree: modules import alone and are tested, lock files hold no addresses, the README's commands exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in (ROOT / "devmesh").rglob("*.py")
)


def test_every_module_imports_alone():
    program = """
import importlib, subprocess, sys, os
import aiohttp.web, consul.aio, cryptography.x509, docker, orjson, pydantic, rich, ruamel.yaml, typer  # others' code, once for all
failed = []
for name in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    failed += [name] * (os.waitpid(pid, 0)[1] != 0)
sys.exit(bool(failed))
"""
    done = subprocess.run([sys.executable, "-c", program, *MODULES], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


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
