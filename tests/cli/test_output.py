"""What the terminal shows is what was said."""

import pytest
from rich.console import Console

from devmesh.cli import output
from devmesh.errors import DevmeshError


@pytest.mark.parametrize("text", ["#6 [base 2/3] RUN true [/bin/sh -c x]", "[/]", "a[bold]b"])
def test_brackets_in_what_a_build_or_an_app_says_are_text(capsys, text):
    output.note(text)
    output.error(DevmeshError(text, text))
    said = capsys.readouterr().err.splitlines()
    assert said == [text, f"error: {text}", "", f"hint: {text}"]


def test_what_is_copied_whole_is_not_folded_however_narrow_the_terminal(capsys, monkeypatch):
    place = "mesh/" + "x" * 90 + ".yaml:10"
    monkeypatch.setattr(output, "out", Console(force_terminal=True, width=40))
    output.table(("MATCH", "SOURCE"), [("/*", place)], wide=True)
    assert capsys.readouterr().out == f"MATCH  SOURCE\n/*     {place}\n"
