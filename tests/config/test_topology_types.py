import orjson
import pytest

from devmesh.config.topology_types import Service, ServicePort, Topology, Workload, port_protocol
from tests.config.bookinfo import topology


def test_the_registrys_form_loses_nothing_a_proxy_needs(tmp_path):
    first = topology(tmp_path)
    second = Topology.from_json(orjson.loads(orjson.dumps(first.to_json())))
    assert second.to_json() == first.to_json()
    assert second.services == first.services
    assert [(one.name, one.ip, one.ports, one.gateway, one.spiffe_id) for one in second.workloads] == [
        (one.name, one.ip, one.ports, one.gateway, one.spiffe_id) for one in first.workloads
    ]


def test_the_contract_of_the_architecture_page_holds(tmp_path):
    form = topology(tmp_path).to_json()
    assert {"name", "namespace", "clusterIP", "selector", "ports"} == set(form["services"][0])
    assert {"name", "namespace", "ip", "labels", "serviceAccount", "gateway", "service", "version", "ports", "networks"} == set(
        form["workloads"][0]
    )


def test_a_topology_written_by_hand_needs_only_what_istios_compiler_needs():
    service = {
        "name": "a",
        "namespace": "default",
        "clusterIP": "10.0.0.1",
        "selector": {"app": "a"},
        "ports": [{"name": "http", "port": 80}],
    }
    workload = {"name": "a-v1", "namespace": "default", "ip": "10.0.0.2", "labels": {"app": "a", "version": "v1"}}
    found = Topology.from_json({"services": [service], "workloads": [workload]})
    assert (found.services[0].ports[0].target_port, found.services[0].ports[0].protocol) == (80, "http")
    assert (found.workloads[0].service, found.workloads[0].version, found.workloads[0].service_account) == ("a", "v1", "default")
    assert found.services[0].hostname == "a.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "app_protocol", "port", "protocol"),
    [
        ("http", "", 80, "http"), ("HTTP-web", "", 80, "http"), ("http2-web", "", 80, "http2"), ("grpc", "", 80, "http2"),
        ("grpc-web-x", "", 80, "http2"),
        ("https", "", 443, "tcp"), ("tcp-x", "", 80, "tcp"), ("mongo", "", 80, "tcp"), ("web", "", 80, "auto"), ("", "", 80, "auto"),
        ("httpx", "", 80, "auto"), ("web", "", 3306, "tcp"), ("http", "tcp", 80, "tcp"), ("http", "unknown", 80, "auto"),
        ("x", "kubernetes.io/h2c", 80, "http2"), ("x", "kubernetes.io/ws", 80, "http"), ("http-proxy", "", 80, "http"),
    ],
)  # fmt: skip
def test_protocols_are_selected_as_istiod_selects_them(name, app_protocol, port, protocol):
    assert port_protocol(name, app_protocol, port)[0] == protocol


def test_traffic_says_what_a_sniffed_port_speaks_and_never_what_a_named_one_does():
    ports = (ServicePort("", 9080, 9080), ServicePort("http-web", 8000, 8000, protocol="http", protocol_source="name"))
    topology = Topology("t", "", (Service("a", "default", "10.0.0.1", {}, ports), Service("b", "default", "10.0.0.2", {}, ports)), ())
    told = topology.with_h2({("a", "default"): {9080, 8000}})
    assert [(p.protocol, p.protocol_source) for p in told.services[0].ports] == [("http2", "traffic"), ("http", "name")]
    assert told.services[1] == topology.services[1]


def service(name: str, address: str, *ports: int) -> Service:
    return Service(name, "default", address, {"app": name}, tuple(ServicePort(f"http-{port}", port, port) for port in ports))


def workload(name: str, of: str) -> Workload:
    return Workload(name, "default", of, "v1", {}, of, "127.7.0.1", (9080,))


def test_a_service_of_two_meshes_is_one_with_the_first_ones_address_and_everybodys_workloads():
    first = Topology("a", "", (service("reviews", "240.240.0.1", 9080),), (workload("reviews-v1", "reviews"),))
    second = Topology(
        "b", "", (service("reviews", "240.240.1.1", 9080, 9090), service("desk", "240.240.1.2", 80)), (workload("reviews-v9", "reviews"),)
    )
    joined = first.joined([second])
    assert [(one.name, one.cluster_ip, [port.port for port in one.ports]) for one in joined.services] == [
        ("reviews", "240.240.0.1", [9080, 9090]),
        ("desk", "240.240.1.2", [80]),
    ]
    assert [one.name for one in joined.workloads] == ["reviews-v1", "reviews-v9"]
