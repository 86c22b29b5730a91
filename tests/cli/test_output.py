"""What the terminal shows is what was said."""

import pytest

from devmesh.cli import output
from devmesh.errors import DevmeshError


@pytest.mark.parametrize("text", ["#6 [base 2/3] RUN true [/bin/sh -c x]", "[/]", "a[bold]b"])
def test_brackets_in_what_a_build_or_an_app_says_are_text(capsys, text):
    output.note(text)
    output.error(DevmeshError(text, text))
    said = capsys.readouterr().err.splitlines()
    assert said == [text, f"error: {text}", "", f"hint: {text}"]
