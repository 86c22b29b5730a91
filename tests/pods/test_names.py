"""What a pod finds in /etc/hosts and /etc/resolv.conf."""

from pathlib import Path

from devmesh.pods.names import HOST_GATEWAY, host_aliases, hosts_file, mount_over, read_or_empty, resolv_conf


def test_a_service_of_ones_own_namespace_has_its_short_name_another_one_has_not():
    assert host_aliases("reviews", "default", "default") == [
        "reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local",
    ]  # fmt: skip
    assert host_aliases("reviews", "shop", "default")[0] == "reviews.shop"


def test_the_hosts_file_keeps_the_machines_lines_except_where_the_mesh_has_the_name():
    text = hosts_file("127.0.0.1 localhost\n10.0.0.1 reviews other # old\n", "front-v1", "127.7.0.1", {"240.240.0.1": ["reviews"]})
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1 localhost"
    assert "10.0.0.1 reviews other # old" not in lines
    assert "127.7.0.1\tfront-v1" in lines
    assert f"{HOST_GATEWAY}\thost.docker.internal" in lines
    assert lines[-1] == "240.240.0.1\treviews"


def test_the_resolver_is_the_sidecar_with_kubernetes_search_list_before_the_machines():
    assert resolv_conf("nameserver 127.0.0.53\nsearch corp.example svc.cluster.local\noptions edns0\n", "shop") == (
        "nameserver 127.0.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n"
    )


def test_an_absent_file_or_a_link_to_nothing_reads_as_empty(tmp_path: Path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert read_or_empty(str(tmp_path / "absent")) == ""
    assert read_or_empty(str(tmp_path / "dangling")) == ""


def test_a_mount_over_nothing_says_why_it_did_not_happen(tmp_path: Path):
    assert mount_over(tmp_path / "absent", str(tmp_path / "also-absent"))
