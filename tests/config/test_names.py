import pytest

from devmesh.config.names import expand_host, host_matches, hosts_overlap, split_fqdn


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.other", "reviews.other"),
        ("reviews.other.svc.cluster.local", "reviews.other.svc.cluster.local"),
        ("*", "*"),
        ("*.example.com", "*.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_only_names_without_a_dot_are_short(host, full):
    assert expand_host(host, "shop") == full


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("*", "reviews", True),
        ("a.com", "a.com", True),
        ("*.a.com", "x.a.com", True),
        ("*.a.com", "a.com", False),
        ("*.a.com", "*.b.a.com", True),
        ("*.b.a.com", "*.a.com", False),
        ("a.com", "*.com", False),
    ],
)
def test_a_pattern_matches_what_istio_calls_a_subset(pattern, host, matches):
    assert host_matches(pattern, host) is matches
    if matches:
        assert hosts_overlap(host, pattern)


def test_a_full_name_splits_into_service_and_namespace():
    assert split_fqdn("reviews.shop.svc.cluster.local") == ("reviews", "shop")
    assert split_fqdn("a.b.c.svc.cluster.local") is None
    assert split_fqdn("example.com") is None
