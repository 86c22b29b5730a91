import pytest

from devmesh.config.syntax import domain_problem, is_header_value, is_label_key, socket_problem, subnet_problem, wildcard_domain_problem
from tests.config.more_cases import DOMAINS, HEADERS, LABELS
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*DOMAINS, *LABELS, *HEADERS], ids=lambda case: case.spec)
def test_names_labels_and_header_values_are_read_as_istiod_reads_them(case):
    check(case)


@pytest.mark.parametrize("domain", ["a", "a.b", "*", "*.a", "*-x.a", "a.", "x.5.", "A.b"])
def test_names_and_first_label_wildcards_are_hosts(domain):
    assert wildcard_domain_problem(domain) is None


@pytest.mark.parametrize("domain", ["", "a_b", "a..b", "a.*", "-a", "a.1", "x" * 256, "a/b", "http://a", "10.0.0.1", "::1", "**"])
def test_everything_else_is_not(domain):
    assert wildcard_domain_problem(domain) is not None


def test_a_full_name_has_no_wildcard():
    assert domain_problem("a.b") is None
    assert domain_problem("*.b") == 'domain name "*.b" invalid (label "*" invalid)'


@pytest.mark.parametrize("subnet", ["10.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32", "fe80::1%eth0", "0.0.0.0/0"])
def test_addresses_and_ranges_are_subnets(subnet):
    assert subnet_problem(subnet) is None


@pytest.mark.parametrize("subnet", ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "10.0.0.0/8/8", "fe80::%a/64", "/8"])
def test_a_range_has_a_plain_number_of_bits(subnet):
    assert subnet_problem(subnet) is not None


def test_a_socket_is_absolute_or_abstract():
    assert [bool(socket_problem(one)) for one in ("/a", "@a", "a", "/a/", "")] == [False, False, True, True, True]


def test_the_dns_name_before_a_labels_name_is_made_of_labels():
    assert is_label_key("app.kubernetes.io/name")
    assert not is_label_key("a..b/name")
    assert not is_label_key("/name")


def test_a_header_value_of_many_percent_signs_is_read_in_no_time():
    assert not is_header_value("%X([" + '"a" ,' * 2000 + "%")
