"""The rendered project as a whole, against golden files; `python -m tests.runtimes.docker.test_project` writes them anew."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from devmesh.runtimes.docker.project import as_yaml, render
from tests.runtimes.docker.layouts import layout_from, layout_of

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix("-in.yaml") for path in GOLDEN.glob("*-in.yaml"))
EXPOSED = {"db": [5432]}


def rendered(case: str) -> str:
    return as_yaml(render(layout_of(GOLDEN / f"{case}-in.yaml", exposed=EXPOSED)), "compose.yaml")


@pytest.mark.parametrize("case", CASES)
def test_the_project_is_the_golden_one(case):
    assert rendered(case) == (GOLDEN / f"{case}-out.yaml").read_text()


def test_an_unchanged_file_is_rendered_alike_again():
    assert rendered("shop") == rendered("shop")


def test_a_line_break_in_a_command_survives_the_file(tmp_path):
    text = 'name: a\nservices: {a: {image: b, command: [sh, -c, "echo 1\\necho $$2"], expose: ["80"]}}\n'
    again = YAML(typ="safe").load(as_yaml(render(layout_from(tmp_path, text)), "compose.yaml"))
    assert again["services"]["a"]["command"] == ["sh", "-c", "echo 1\necho $$2"]


if __name__ == "__main__":
    for name in CASES:
        (GOLDEN / f"{name}-out.yaml").write_text(rendered(name))
