import pytest

from devmesh.config.interpolation import interpolate, parse_env_file

VARIABLES = {"A": "1", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "1"), ("${A}", "1"), ("$$A", "$A"), ("${NO}", ""), ("${NO:-x}", "x"), ("${NO-x}", "x"), ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:+x}", "x"), ("${NO+x}", ""), ("${NO:-${A}}", "1"), ("a${A}b${A}c", "a1b1c"), ("${A:?no}", "1"), ("5$", "5$"),
        ("${NO:-a-b:c}", "a-b:c"),
    ],
)  # fmt: skip
def test_every_form_of_the_compose_specification_works(text, result):
    assert interpolate({"a": [text]}, VARIABLES, lambda *_: pytest.fail("no mistake here")) == {"a": [result]}


def test_a_required_variable_without_a_value_is_reported_with_its_place():
    reports = []
    interpolate({"a": {"b": ["${NO:?set it}", "${EMPTY:?}"]}}, VARIABLES, lambda path, message: reports.append((path, message)))
    assert reports == [("a.b[0]", "NO is not set: set it"), ("a.b[1]", "EMPTY is not set")]


def test_env_files_know_comments_export_and_quotes():
    text = "# c\nA=1 # why\nexport B='x # y'\nC=\"a\\nb\"\nD = spaced \nE=\nnot a line\n"
    assert parse_env_file(text) == {"A": "1", "B": "x # y", "C": "a\nb", "D": "spaced", "E": ""}
