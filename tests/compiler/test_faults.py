"""A devmesh Fault is an inbound route of the callee, in front of its default one."""

from tests.compiler.worlds import compiled, fault


def inbound_routes(*yaml, workload="api-v1", chain="0.0.0.0_8000"):
    chains = compiled(workload, *yaml)["listeners"]["virtualInbound"]["filter_chains"]
    manager = next(one for one in chains if one["name"] == chain)["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"]


def test_without_faults_there_is_only_the_default_route():
    assert [route["name"] for route in inbound_routes()] == ["default"]


def test_an_abort_for_part_of_the_requests_comes_before_the_default_route():
    first, default = inbound_routes(fault("{id: f1, target: api, abort: {httpStatus: 503, percentage: 12.5}}"))
    assert (first["name"], default["name"]) == ("fault/f1", "default")
    abort = first["typed_per_filter_config"]["envoy.filters.http.fault"]["abort"]
    assert abort == {"http_status": 503, "percentage": {"numerator": 125000, "denominator": "MILLION"}}
    assert first["route"] == default["route"]


def test_a_delay_is_written_as_a_duration():
    first, _ = inbound_routes(fault("{id: f1, target: api, delay: {fixedDelay: 0.3}}"))
    assert first["typed_per_filter_config"]["envoy.filters.http.fault"]["delay"]["fixed_delay"] == "0.300s"


def test_a_path_is_exact_unless_a_star_ends_it():
    assert inbound_routes(fault("{id: f1, target: api, path: /a, abort: {httpStatus: 500}}"))[0]["match"] == {"path": "/a"}
    assert inbound_routes(fault('{id: f1, target: api, path: "/a/*", abort: {httpStatus: 500}}'))[0]["match"] == {"prefix": "/a/"}


def test_headers_and_the_callers_identity_narrow_the_match():
    text = "{id: f1, target: api, from: web, headers: {end-user: jason}, abort: {httpStatus: 500}}"
    header, caller = inbound_routes(fault(text))[0]["match"]["headers"]
    assert header == {"name": "end-user", "string_match": {"exact": "jason"}}
    assert caller["name"] == "x-forwarded-client-cert"
    assert "spiffe://cluster\\.local/ns/default/sa/web" in caller["string_match"]["safe_regex"]["regex"]


def test_other_services_are_left_alone():
    assert [route["name"] for route in inbound_routes(fault("{id: f1, target: web, abort: {httpStatus: 500}}"))] == ["default"]
