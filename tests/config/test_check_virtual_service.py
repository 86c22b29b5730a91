import pytest

from tests.config.bookinfo import diagnose
from tests.config.cases import VIRTUAL_SERVICES, routed
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*VIRTUAL_SERVICES], ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)


@pytest.mark.parametrize(
    ("operations", "named"),
    [
        ("request: {set: {Content-Length: '3', x: z}}", ["request.set.Content-Length"]),
        ("response: {add: {connection: close}, remove: [transfer-encoding]}", ["response.add.connection", "response.remove[0]"]),
        ("request: {add: {connection: close}}", []),
    ],
)
def test_headers_that_the_proxy_itself_says_are_named(operations, named):
    found = diagnose(routed(f"headers: {{{operations}}}").document())
    assert [(one.severity, one.code) for one in found] == [("warning", "DM0007")] * len(named)
    for one, path in zip(found, named, strict=True):
        assert f".headers.{path}: accepted, has no effect here: the proxy itself says where a body ends" in one.message
