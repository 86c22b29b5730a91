import pytest

from devmesh.config.checks import domain_problem, is_retry_policy, regex_problem


@pytest.mark.parametrize(
    ("pattern", "valid"), [("a+", True), ("(?i)a", True), ("a(?=b)", False), ("(", False), (r"\d{2,3}", True), ("(?<n>a)", True)]
)
def test_regexes_are_re2s(pattern, valid):
    assert (regex_problem(pattern) is None) is valid


@pytest.mark.parametrize("domain", ["a", "a.b", "*", "*.a", "*-x.a", "a.", "10.0.0.1", "::1"])
def test_names_addresses_and_first_label_wildcards_are_hosts(domain):
    assert domain_problem(domain) is None


@pytest.mark.parametrize("domain", ["", "a_b", "a..b", "a.*", "-a", "a.1", "x" * 256, "a/b", "http://a"])
def test_everything_else_is_not(domain):
    assert domain_problem(domain) is not None


def test_status_codes_are_retry_policies():
    assert is_retry_policy("503")
    assert not is_retry_policy("599x")
    assert not is_retry_policy("999")
