import subprocess

import orjson
import pytest

from devmesh.config.topology import Gateways, Topology, check_local, load_topology
from devmesh.errors import DevmeshError
from tests.config.bookinfo import topology
from tests.support.require import tool


def built(tmp_path, text, mesh=0) -> Topology:
    (tmp_path / "compose.yaml").write_text(text)
    return load_topology(tmp_path / "compose.yaml", mesh, environ={})


def failure(tmp_path, text):
    with pytest.raises(DevmeshError) as caught:
        built(tmp_path, text)
    return caught.value.message.replace(f"{tmp_path}/", ""), caught.value.hint


def test_labels_make_two_workloads_of_one_service(tmp_path):
    text = """\
name: shop
services:
  reviews-v1: {build: ., command: run, labels: {app: reviews, version: v1, com.example/x: "y z"}, expose: [9080]}
  reviews-v2: {build: ., command: run, labels: [app=reviews, version=v2], expose: ["9080/tcp"]}
  ratings: {build: ., command: run, ports: ["8080:80"]}
"""
    found = built(tmp_path, text, 3)
    assert [(one.name, one.service, one.version, one.ip) for one in found.workloads] == [
        ("reviews-v1", "reviews", "v1", "127.7.3.1"),
        ("reviews-v2", "reviews", "v2", "127.7.3.2"),
        ("ratings", "ratings", "v1", "127.7.3.3"),
        ("istio-ingressgateway", "istio-ingressgateway", "latest", "127.7.3.4"),
    ]
    assert [(one.name, one.cluster_ip, one.selector) for one in found.services][:2] == [
        ("reviews", "240.240.3.1", {"app": "reviews"}),
        ("ratings", "240.240.3.2", {"app": "ratings"}),
    ]
    assert found.workloads[0].labels == {"app": "reviews", "version": "v1"}
    assert found.workloads[0].spiffe_id == "spiffe://cluster.local/ns/default/sa/reviews"


def test_x_devmesh_says_it_outright(tmp_path):
    text = """\
x-devmesh: {namespace: shop}
services:
  r: {build: ., command: run, x-devmesh: {service: reviews, version: v2, serviceAccount: bookinfo-reviews, port: 9080, protocol: http}}
  d: {image: x, x-devmesh: {namespace: data, port: 5432, protocol: tcp, local: {command: [run, me], working_dir: sub, environment: {A: 1}}}}
"""
    first, second = built(tmp_path, text).workloads[:2]
    assert (first.service, first.namespace, first.version, first.service_account, first.ports) == (
        "reviews",
        "shop",
        "v2",
        "bookinfo-reviews",
        (9080,),
    )
    assert (second.namespace, second.command, second.environment) == ("data", ("run", "me"), {"A": "1"})
    assert second.working_dir == str(tmp_path / "sub")


@pytest.mark.parametrize(
    ("service", "port"),
    [
        ("{x-devmesh: {port: 9080, protocol: http}}", ("http", 9080, "http", "x-devmesh")),
        ("{x-devmesh: {port: 9080, protocol: grpc}}", ("grpc", 9080, "http2", "x-devmesh")),
        ("{expose: [9080]}", ("port-9080", 9080, "auto", "sniffed")),
        ("{expose: [3306]}", ("port-3306", 3306, "tcp", "well-known port")),
        ("{ports: [{target: 80, name: http-web}]}", ("http-web", 80, "http", "name")),
        ("{ports: [{target: 80, name: web, app_protocol: tcp}]}", ("web", 80, "tcp", "app_protocol")),
        ("{expose: [80], ports: [{target: 80, name: http-web}]}", ("http-web", 80, "http", "name")),
        ("{x-devmesh: {port: 80}, expose: [81], ports: ['82']}", ("port-80", 80, "auto", "sniffed")),
        ("{expose: [81], ports: ['82']}", ("port-81", 81, "auto", "sniffed")),
    ],
)
def test_a_port_and_its_protocol_come_from_the_first_that_says(tmp_path, service, port):
    (found,) = built(tmp_path, f"services: {{a: {service}}}").services[0].ports
    assert (found.name, found.port, found.protocol, found.protocol_source) == port


def test_replicas_are_workloads_of_their_own_and_the_first_has_the_published_port(tmp_path):
    text = """\
services:
  web: {build: ., command: run, scale: 3, ports: ["8080:80"], depends_on: [db]}
  db: {build: ., command: run, deploy: {replicas: 2}}
  off: {build: ., command: run, scale: 0}
"""
    found = built(tmp_path, text)
    assert [one.name for one in found.workloads[:-1]] == ["web", "web-2", "web-3", "db", "db-2"]
    assert [len(one.published) for one in found.workloads[:3]] == [1, 0, 0]
    assert [one.name for one in found.workloads[0].depends_on] == ["db", "db-2"]
    assert (found.workloads[0].published[0].host_port, found.workloads[0].published[0].container_port) == (8080, 80)
    assert [one.name for one in found.services] == ["web", "istio-ingressgateway"]


def test_a_mesh_that_is_too_large_is_said_to_be_once_and_where(tmp_path):
    text = "services:\n" + "".join(f"  s{number}: {{command: run}}\n" for number in range(300))
    message, _ = failure(tmp_path, text)
    assert message == "compose.yaml:255:3: one mesh holds at most 253 workloads; this is one too many"


def test_the_gateway_is_always_there(tmp_path):
    found = topology(tmp_path)
    gateway = found.workload("istio-ingressgateway")
    assert (gateway.namespace, gateway.gateway, gateway.command) == ("istio-system", True, None)
    disabled = {"security.istio.io/tlsMode": "disabled"}  # called in plain text, or as its servers say
    assert gateway.labels == {"istio": "ingressgateway", "app": "istio-ingressgateway", **disabled}
    assert gateway.service_account == "istio-ingressgateway-service-account"
    ports = found.service("istio-ingressgateway", "istio-system").ports
    assert [(one.name, one.port, one.target_port) for one in ports] == [("http2", 80, 8080), ("https", 443, 8443), ("tcp", 31400, 31400)]


@pytest.mark.parametrize(
    ("service", "command", "error"),
    [
        ("{image: x, command: run}", None, "service a (image x) cannot run as a plain process"),
        ("{image: x}", None, "service a (image x) cannot run"),
        ("{image: x, x-devmesh: {local: {command: run}}}", ("run",), None),
        ("{image: x, build: ., command: run}", ("run",), None),
        ("{build: .}", None, "service a (no command) cannot run"),
        ("{command: run}", ("run",), None),
    ],
)
def test_what_can_run_as_a_plain_process_is_said_only_when_asked(tmp_path, service, command, error):
    found = built(tmp_path, f"services:\n  a: {service}\n")
    assert found.workloads[0].command == command
    if error is None:
        check_local(found)
        return
    with pytest.raises(DevmeshError) as caught:
        check_local(found)
    assert caught.value.message.startswith(f"{tmp_path}/compose.yaml:2:3: {error}")
    assert "x-devmesh: {local: {command: ...}}" in caught.value.hint


@pytest.mark.parametrize(
    ("service", "directory"),
    [
        ("{build: app}", "app"),
        ("{build: app, working_dir: /srv}", "app"),
        ("{build: {context: ./app}, working_dir: sub}", "app/sub"),
        ("{command: x}", "."),
    ],
)
def test_a_process_starts_where_its_code_is(tmp_path, service, directory):
    (tmp_path / "app").mkdir()
    assert built(tmp_path, f"services: {{a: {service}}}").workloads[0].working_dir == str((tmp_path / directory).resolve())


def test_resources_lie_in_mesh_beside_the_file_and_where_x_devmesh_says(tmp_path):
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "a.yaml").write_text("")
    (tmp_path / "more.yaml").write_text("")
    found = built(tmp_path, "x-devmesh: {resources: [more.yaml, mesh]}\nservices: {a: {command: x}}")
    assert found.resource_paths == (tmp_path / "mesh", tmp_path / "more.yaml")


@pytest.mark.parametrize(
    ("text", "messages", "hint"),
    [
        (
            "services:\n  a: {x-devmesh: {protcol: http}}\n",
            ['compose.yaml:2:19: unknown field "services.a.x-devmesh.protcol"'],
            'did you mean "protocol"?',
        ),
        ("services:\n  a: {x-devmesh: {protocol: htpp}}\n", ['unknown protocol "htpp"'], 'did you mean "http"?'),
        ("services:\n  a: {x-devmesh: {port: x}}\n", ["must be a port number, not 'x'"], None),
        ("services:\n  a: {depends_on: [bb]}\n  b: {command: x}\n", ['a depends on unknown service "bb"'], 'did you mean "b"?'),
        (
            "services:\n  a: {depends_on: [b]}\n  b: {depends_on: {a: {condition: service_started}}}\n",
            ["depends_on runs in a circle: a -> b -> a"],
            None,
        ),
        ("services:\n  a: {depends_on: [a]}\n", ["compose.yaml:2:", "depends_on runs in a circle: a -> a"], None),
        ("services:\n  a: {links: [b]}\n  b: {links: ['a:x']}\n", ["depends_on runs in a circle: a -> b -> a"], None),
        (
            "services:\n  a:\n    depends_on:\n      b: {condition: service_started, required: false}\n",
            ['compose.yaml:4:7: a depends on unknown service "b"'],
            None,
        ),
        (
            "services:\n  a: {depends_on: [b]}\n  b: {command: x, profiles: [p]}\n",
            ['a depends on unknown service "b": it is of a profile that is not active'],
            "devmesh up --compose-profile, or required: false",
        ),
        ("services:\n  a: {scale: 2}\n  a-2: {command: x}\n", ['two workloads would be called "a-2"'], "rename one of them"),
        ("services:\n  My_App: {command: x}\n", ['"My_App" cannot name a workload'], "rename it my-app"),
        ("services:\n  istio-ingressgateway: {command: x}\n", ["two workloads would be called"], None),
        ("x-devmesh: {resources: nowhere}\nservices: {a: {command: x}}\n", ["nowhere does not exist"], None),
        (
            "x-devmesh: {name: x}\nservices:\n  a: {ports: [x], x-devmesh: {local: 3}}\n",
            ["ports[0] is no port", '"x-devmesh.name"', "must be a mapping"],
            None,
        ),
    ],
)
def test_all_mistakes_are_raised_at_once_with_their_places(tmp_path, text, messages, hint):
    message, given = failure(tmp_path, text)
    assert all(one in message for one in messages)
    assert all(line.startswith("compose.yaml:") for line in message.splitlines())
    assert hint is None or hint in f"{given} {message}"


def test_istios_compiler_reads_the_topology(tmp_path):
    path = tmp_path / "topology.json"
    path.write_bytes(orjson.dumps(topology(tmp_path).oracle_json()))
    done = subprocess.run([tool("istio", "istio-oracle"), "-topology", path, "-for", "reviews-v1"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {one["name"] for one in orjson.loads(done.stdout)["reviews-v1"]["clusters"]}
    assert "outbound|9080||reviews.default.svc.cluster.local" in names


def test_without_an_ingress_gateway_there_is_neither_its_workload_nor_its_service(tmp_path):
    (tmp_path / "compose.yaml").write_text("name: a\nservices: {web: {image: x, expose: ['80']}}\n")
    found = load_topology(tmp_path / "compose.yaml", environ={}, gateways=Gateways(ingress=False))
    assert [one.name for one in found.workloads] == ["web"]
    assert [one.name for one in found.services] == ["web"]
    assert Gateways.of({}) == Gateways(ingress=True, egress=False)
    assert Gateways.of({"ingressGateway": False, "egressGateway": True}) == Gateways(ingress=False, egress=True)


def test_an_egress_gateway_is_there_when_it_is_asked_for(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_text("services: {a: {command: run, expose: ['80']}}\n")
    without, with_one = (load_topology(path, environ={}, gateways=Gateways(egress=on)) for on in (False, True))
    assert without.workload("istio-egressgateway") is None
    gateway = with_one.workload("istio-egressgateway")
    assert (gateway.gateway, gateway.labels["istio"], gateway.ports) == (True, "egressgateway", (8080, 8443))
    assert gateway.spiffe_id == "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account"
    service = with_one.service("istio-egressgateway", "istio-system")
    assert [(one.port, one.target_port) for one in service.ports] == [(80, 8080), (443, 8443)]
    others = {one.ip for one in with_one.workloads if one is not gateway} | {
        one.cluster_ip for one in with_one.services if one is not service
    }
    assert not {gateway.ip, service.cluster_ip} & others


def test_what_is_not_required_and_of_a_profile_that_is_not_active_is_not_waited_for(tmp_path):
    text = (
        "services:\n  a: {command: x, depends_on: {b: {condition: service_healthy, required: false}}}\n  b: {command: x, profiles: [p]}\n"
    )
    assert built(tmp_path, text).workloads[0].depends_on == ()


def test_a_service_of_no_replicas_is_not_waited_for(tmp_path):
    assert built(tmp_path, "services:\n  a: {command: x, depends_on: [b]}\n  b: {command: x, scale: 0}\n").workloads[0].depends_on == ()


def test_without_an_engine_a_service_that_is_to_become_healthy_needs_a_healthcheck(tmp_path):
    text = """\
services:
  web:
    command: x
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_healthy, required: false}
  db: {command: x, healthcheck: {disable: true, test: x}}
  cache: {command: x}
"""
    with pytest.raises(DevmeshError) as caught:
        check_local(built(tmp_path, text))
    assert caught.value.message.endswith("compose.yaml:5:7: web waits for db to be healthy, and db has no healthcheck configured")
    assert caught.value.hint.startswith("give db a healthcheck")
