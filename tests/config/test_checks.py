import pytest

from devmesh.config.checks import is_retry_policy, regex_problem
from tests.config.more_cases import NUMBERS, REGEXES
from tests.config.verdicts import check


@pytest.mark.parametrize(
    ("pattern", "valid"), [("a+", True), ("(?i)a", True), ("a(?=b)", False), ("(", False), (r"\d{2,3}", True), ("(?<n>a)", True)]
)
def test_regexes_are_re2s(pattern, valid):
    assert (regex_problem(pattern) is None) is valid


@pytest.mark.parametrize("case", [*REGEXES, *NUMBERS], ids=lambda case: case.spec)
def test_regexes_and_numbers_are_held_as_istio_holds_them(case):
    check(case)


def test_status_codes_are_retry_policies():
    assert is_retry_policy("503")
    assert not is_retry_policy("599x")
    assert not is_retry_policy("999")
