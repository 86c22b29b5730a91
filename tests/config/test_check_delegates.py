"""A delegation that comes to nothing is told where it is written."""

import pytest

from tests.config.bookinfo import ROUTE, diagnose, virtual_service

ROOT = virtual_service("{match: [{uri: {prefix: /a}}], delegate: {name: team, namespace: %s}}")


def delegate(http, extra="", namespace="default"):
    return virtual_service(http, "[]", extra).replace("hosts: [], ", "").replace("name: reviews", f"name: team, namespace: {namespace}", 1)


def both(root, other):
    return root + "---\n" + other


@pytest.mark.parametrize(
    ("text", "severity", "code", "line", "message"),
    [
        (ROOT % "default", "error", "IST0101", 1, 'Referenced delegate not found: "default/team"'),
        (both(ROOT % "other", delegate(f"{{{ROUTE}}}")), "error", "IST0101", 1, '"other/team"'),
        (both(ROOT % "default", virtual_service(f"{{{ROUTE}}}").replace("reviews}", "team}", 1)), "error", "IST0101", 1, "has hosts"),
        (
            both(ROOT % "other", delegate(f"{{{ROUTE}}}".replace("reviews", "a.com"), "exportTo: [.]", "other")),
            "warning", "DM0007", 1, "not exported to namespace default",
        ),
        (
            both(ROOT % "default", delegate(f"{{match: [{{uri: {{prefix: /b}}}}], {ROUTE}}}, {{{ROUTE}}}")),
            "warning", "DM0007", 1, "excludes what a route of VirtualService default/team is for (mesh.yaml:3",
        ),
        (delegate(f"{{{ROUTE}}}"), "warning", "DM0007", 1, "no VirtualService delegates to it"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_told(text, severity, code, line, message):
    found = [one for one in diagnose(text) if one.where.line == line]
    assert [(one.severity, one.code) for one in found] == [(severity, code)]
    assert message in found[0].message


def test_a_delegation_that_works_is_not_mentioned():
    assert not diagnose(both(ROOT % "default", delegate(f"{{match: [{{uri: {{prefix: /a/b}}}}], {ROUTE}}}")))
