"""What a service becomes as a pod: what moves, what stays, what is refused."""

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.layout import COLLECTOR
from devmesh.runtimes.docker.pods import MOVED, addresses_by_name, healthcheck, refused_names, rules_of
from devmesh.runtimes.docker.project import render
from tests.runtimes.docker.layouts import FOLDER, layout_from

WEB = "name: a\nservices:\n  web: {{image: x, expose: ['80'], {0}}}\n"


def services(folder, extra, **options):
    return render(layout_from(folder, WEB.format(extra), **options))["services"]


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        ("hostname: shop", {"hostname": "shop"}),
        ("domainname: example.org", {"domainname": "example.org"}),
        ("dns: [1.1.1.1]", {"dns": ["1.1.1.1"]}),
        ("dns_opt: [use-vc]", {"dns_opt": ["use-vc"]}),
        ("dns_search: [example.org]", {"dns_search": ["example.org"]}),
        ("mac_address: 02:42:ac:11:65:43", {"mac_address": "02:42:ac:11:65:43"}),
        ("ports: [{target: 80, published: '8080', protocol: tcp}]", {"ports": [{"target": 80, "published": "8080", "protocol": "tcp"}]}),
        ("external_links: ['redis:cache']", {"external_links": ["redis:cache"]}),
        ("sysctls: {net.core.somaxconn: '9'}", {"sysctls": {"net.core.somaxconn": "9"}}),
    ],
)
def test_what_the_engine_refuses_beside_a_shared_namespace_is_the_pods(tmp_path, given, moved):
    made = services(tmp_path, given)
    assert moved.items() <= made["web-pod"].items()
    assert not set(MOVED) & made["web"].keys()
    assert "sysctls" not in made["web"]
    assert made["web"]["network_mode"] == made["web-sidecar"]["network_mode"] == "service:web-pod"


def test_the_users_own_hosts_come_before_the_services_addresses(tmp_path):
    hosts = services(tmp_path, "extra_hosts: ['outside=203.0.113.7', 'six:2001:db8::1']")["web-pod"]["extra_hosts"]
    assert hosts[:3] == ["outside:203.0.113.7", "six:2001:db8::1", "web:240.240.0.1"]


def test_only_the_pods_init_may_change_the_network_and_nothing_else_is_privileged(tmp_path):
    made = services(tmp_path, "restart: always")
    assert {name: one.get("cap_add") for name, one in made.items() if "cap_add" in one} == {"web-pod": ["NET_ADMIN"]}
    ours = {name: one for name, one in made.items() if name != "web"}
    assert all(one["cap_drop"] == ["ALL"] and one["read_only"] for one in ours.values())
    assert not [name for name, one in ours.items() for volume in one.get("volumes", ()) if "docker.sock" in volume["source"]]


@pytest.mark.parametrize("mode", ["host", "none", "bridge", "service:other", "container:abc"])
def test_a_network_mode_is_refused_with_the_way_out(tmp_path, mode):
    with pytest.raises(DevmeshError, match=f"web has network_mode: {mode}") as caught:
        services(tmp_path, f"network_mode: '{mode}'")
    assert caught.value.hint is not None
    assert "inject: false" in caught.value.hint


def test_istios_labels_say_what_is_not_intercepted(tmp_path):
    prefix = "traffic.sidecar.istio.io/"
    labels = f"{prefix}excludeInboundPorts: '22, 9000', {prefix}includeOutboundIPRanges: 10.0.0.0/8, {prefix}excludeOutboundPorts: '3306'"
    layout = layout_from(tmp_path, WEB.format(f"labels: {{{labels}}}"))
    rules = rules_of(layout, layout.topology.workloads[0])
    assert rules.exclude_inbound_ports == ("22", "9000")
    assert rules.include_outbound_ranges == ("10.0.0.0/8",)
    assert rules.exclude_outbound_ports == ("3306",)


def test_an_app_is_told_where_its_spans_go_unless_the_users_file_says_so(tmp_path):
    told = services(tmp_path, "restart: always")["web"]["environment"]
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{COLLECTOR}"
    assert told["OTEL_SERVICE_NAME"] == "web"
    kept = services(tmp_path, "environment: {OTEL_EXPORTER_OTLP_ENDPOINT: 'http://mine:4318'}")["web"]["environment"]
    assert kept["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://mine:4318"


def test_each_replica_is_a_pod_of_its_own_and_the_first_has_the_host_port(tmp_path):
    made = services(tmp_path, "scale: 3, container_name: shop, ports: [{target: 80, published: '8080'}, {target: 81}]")
    assert [name for name in made if name.endswith("-pod")] == ["web-pod", "web-2-pod", "web-3-pod"]
    assert [port.get("published") for port in made["web-pod"]["ports"]] == ["8080", None]
    assert made["web-2-pod"]["ports"] == [{"target": 81}]
    assert [made[name].get("container_name") for name in ("web", "web-2")] == ["shop", None]
    assert not {"scale", "deploy"} & made["web-2"].keys()
    assert len({made[f"{name}-pod"]["networks"]["default"]["ipv4_address"] for name in ("web", "web-2", "web-3")}) == 3


def test_each_replica_has_a_host_port_of_a_range(tmp_path):
    made = services(tmp_path, "scale: 2, ports: [{target: 80, published: '8080-8081'}]")
    assert made["web-pod"]["ports"] == made["web-2-pod"]["ports"] == [{"target": 80, "published": "8080-8081"}]


def test_a_project_folder_that_an_app_mounts_hides_the_meshs_secrets(tmp_path):
    source = FOLDER.parent.parent
    made = services(tmp_path, f"volumes: [{{type: bind, source: {source}, target: /code}}, {{type: bind, source: /etc, target: /e}}]")
    assert made["web"]["volumes"][2:] == [{"type": "tmpfs", "target": "/code/.devmesh"}]


def test_the_folder_of_secrets_itself_may_not_be_mounted(tmp_path):
    with pytest.raises(DevmeshError, match="holds the mesh's secrets"):
        services(tmp_path, f"volumes: [{{type: bind, source: {FOLDER.parent}, target: /x}}]")


def test_a_service_that_publishes_nothing_gets_a_port_on_loopback(tmp_path):
    assert services(tmp_path, "restart: always", prefer=lambda port: port or 40001)["web-pod"]["ports"] == ["127.0.0.1:40001:80"]


def test_so_does_one_that_publishes_udp_only(tmp_path):
    udp = {"target": 53, "published": "5353", "protocol": "udp"}
    made = services(tmp_path, "ports: [{target: 53, published: '5353', protocol: udp}]", prefer=lambda port: port or 40001)
    assert made["web-pod"]["ports"] == [udp, "127.0.0.1:40001:80"]


def test_a_service_without_a_port_is_meshed_all_the_same(tmp_path):
    made = render(layout_from(tmp_path, "name: a\nservices: {worker: {image: x}}\n"))["services"]
    assert {"worker", "worker-pod", "worker-sidecar"} <= made.keys()
    assert "ports" not in made["worker-pod"]


def test_start_is_pod_then_sidecar_ready_then_app(tmp_path):
    made = services(tmp_path, "restart: always")
    assert made["web-sidecar"]["depends_on"] == {"web-pod": {"condition": "service_started"}}
    assert made["web"]["depends_on"] == {"web-sidecar": {"condition": "service_healthy"}}


def test_an_engine_without_start_interval_gets_one_interval(tmp_path):
    check = services(tmp_path, "restart: always", start_interval=False)["web-sidecar"]["healthcheck"]
    assert (check["interval"], "start_interval" in check) == ("10s", False)


@pytest.mark.parametrize(("since", "word", "often"), [(False, "interval", "5s"), (True, "start_interval", "2s")])
def test_a_sidecar_is_not_looked_at_while_a_mesh_starts_and_what_others_wait_for_is(since, word, often):
    assert healthcheck([], start_interval=since, early=False)[word] == "10s"
    assert healthcheck([], start_interval=since)[word] == often


NAMED = """\
name: a
services:
  web: {image: x, expose: ['80'], links: ['db:sql', 'job:worker']}
  db: {image: x, expose: ['5432'], container_name: Main-DB, networks: {default: {aliases: [database]}}}
  job: {image: x}
  old: {image: x, expose: ['80'], labels: {app: api, version: v1}}
  new: {image: x, expose: ['80'], labels: {app: api, version: v2}}
  far: {image: x, expose: ['80'], x-devmesh: {namespace: other}}
"""


def test_every_further_name_of_a_service_leads_to_its_address_in_the_mesh(tmp_path):
    made = render(layout_from(tmp_path, NAMED))["services"]
    names = {line.split(":")[0]: line.split(":")[1] for line in made["web-pod"]["extra_hosts"]}
    assert {names[name] for name in ("db", "main-db", "database", "database.default.svc.cluster.local", "sql")} == {names["db"]}
    assert "sql" not in {line.split(":")[0] for line in made["db-pod"]["extra_hosts"]}


def test_only_a_link_to_what_has_no_address_in_the_mesh_stays_a_link(tmp_path):
    assert render(layout_from(tmp_path, NAMED))["services"]["web-pod"]["links"] == ["job-pod:worker"]


def test_names_that_only_the_engine_knows_are_refused_to_apps_in_the_mesh(tmp_path):
    layout = layout_from(tmp_path, NAMED.replace("db: {image: x", "db: {image: x, scale: 2"))
    web, far = (layout.topology.workload(name) for name in ("web", "far"))
    pods = [f"{name}-pod" for name in ("db", "db-2", "far", "job", "new", "old", "web")]
    others = ["old", "new", "far", "db-2", "istio-ingressgateway", "consul", "ca", "control", "jaeger"]
    assert refused_names(layout, web) == sorted([*pods, *(f"a-{name}-1" for name in pods), *others])
    assert "far" not in refused_names(layout, far)
    assert {"web", "db", "database"} <= set(refused_names(layout, far))


def test_a_workload_without_a_port_is_found_where_the_caller_shares_a_network_with_it(tmp_path):
    text = (
        "name: a\nservices:\n  web: {image: x, expose: ['80'], networks: {one: null}}\n"
        "  near: {image: x, networks: {two: null, one: null}}\n  far: {image: x, networks: {two: null}}\n"
        "networks: {one: null, two: null}\n"
    )
    layout = layout_from(tmp_path, text)
    web = layout.topology.workload("web")
    assert addresses_by_name(layout, web) == {"near": layout.topology.workload("near").addresses["one"]}
    assert "far" in refused_names(layout, web)
    assert "near" not in refused_names(layout, web)


def test_services_outside_the_mesh_still_find_a_pod_by_its_names(tmp_path):
    made = render(layout_from(tmp_path, NAMED))["services"]
    assert made["db-pod"]["networks"]["default"]["aliases"] == ["db", "Main-DB", "database"]
