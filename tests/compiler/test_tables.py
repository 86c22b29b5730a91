"""Route tables: one a port, and whose hosts are in it."""

from devmesh.compiler import MeshSettings
from tests.compiler.worlds import compiled, document, virtual_service

SERVICE = virtual_service("{hosts: [api], http: [{timeout: 2s, route: [{destination: {host: api}}]}]}")


def hosts(table, *yaml, workload="web-v1", **more):
    return {one["name"]: one for one in compiled(workload, *yaml, **more)["routes"][table]["virtual_hosts"]}


def test_a_virtual_service_is_only_in_the_tables_of_its_hosts_ports():
    assert set(hosts("9080", SERVICE)) == {"web.default.svc.cluster.local:9080", "allow_any"}
    assert hosts("8000", SERVICE)["api.default.svc.cluster.local:8000"]["routes"][0]["route"]["timeout"] == "2s"


def test_the_most_specific_host_wins_over_the_older_virtual_service():
    wide = virtual_service('{hosts: ["*.default.svc.cluster.local"], http: [{timeout: 9s, route: [{destination: {host: web}}]}]}', "a-wide")
    assert hosts("8000", wide, SERVICE)["api.default.svc.cluster.local:8000"]["routes"][0]["route"]["timeout"] == "2s"
    assert hosts("9080", wide, SERVICE)["web.default.svc.cluster.local:9080"]["routes"][0]["route"]["timeout"] == "9s"


def test_registry_only_blocks_what_nobody_knows():
    found = hosts("8000", settings=MeshSettings(outbound_traffic_policy="REGISTRY_ONLY"))
    assert found["block_all"]["routes"][0]["direct_response"] == {"status": 502}


def test_a_gateway_serves_what_its_server_and_the_virtual_service_share():
    gateway = document(
        "Gateway", "gw", '{selector: {app: gate}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*.example"]}]}'
    )
    spec = "{hosts: [a.example, b.other], gateways: [gw], http: [{route: [{destination: {host: web, port: {number: 9080}}}]}]}"
    assert set(hosts("http.8080", gateway, virtual_service(spec), workload="gate-v1")) == {"a.example:8080"}
