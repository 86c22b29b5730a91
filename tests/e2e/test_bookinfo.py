"""Istio's Bookinfo tasks with their own YAML, through real processes."""

import json
import re
import subprocess
from collections import Counter

import pytest

from devmesh import __version__
from tests.e2e.conftest import RunningMesh, until
from tests.support.chance import plausible
from tests.support.web_certificates import WebCa

pytestmark = pytest.mark.e2e


def apply_task(mesh: RunningMesh, *names: str) -> None:
    arguments = [argument for name in names for argument in ("-f", f"tasks/{name}.yaml")]
    mesh.devmesh("apply", *arguments)


def test_up_leaves_every_workload_ready_and_in_sync(bookinfo):
    workloads = bookinfo.json("status")["workloads"]
    assert len(workloads) == 8  # with both gateways, as in profile demo
    for one in workloads:
        assert one["ready"], one
        assert one["synced"], one
        assert one["sidecar_version"] == __version__, one
        assert one["certificate"]["spiffe_id"].startswith("spiffe://cluster.local/ns/"), one


def test_the_page_shows_details_and_reviews_through_the_gateway(bookinfo):
    page = bookinfo.page()
    assert "The Comedy of Errors" in page
    assert "PublisherA" in page
    assert "An extremely entertaining play by Shakespeare" in page


def _way_up(spans, span):
    """(service, kind) from a span to its root."""
    by_id = {one["span_id"]: one for one in spans}
    while span is not None:
        yield span["service"], span["kind"]
        span = by_id.get(span["parent_id"])


def test_a_trace_from_the_page_to_the_ratings_is_one_tree_of_apps_and_sidecars(clean_bookinfo):
    """A sidecar calls with a span of its own and one for each attempt."""
    apply_task(clean_bookinfo, "destination-rule-all", "virtual-service-all-v1")
    apply_task(clean_bookinfo, "virtual-service-reviews-test-v2")
    cookie, parent = f"session={clean_bookinfo.login('jason')}", f"traceparent: 00-{'a' * 32}-{'3' * 16}-01"
    wanted = [("ratings", "server"), ("ratings.default", "server")]
    for caller in ("reviews", "productpage"):
        wanted += [(f"{caller}.default", "client")] * 2 + [(caller, "client"), (caller, "server"), (f"{caller}.default", "server")]
    wanted += [("istio-ingressgateway.istio-system", "client")] * 2

    def whole() -> bool:
        """Asked for again as long as it is not: an app's own spans begin some time after it listens."""
        subprocess.run(["curl", "-s", "-o", "/dev/null", "-b", cookie, "-H", parent, f"{clean_bookinfo.gateway}/productpage"], check=True)
        done = clean_bookinfo.devmesh("traces", "show", "a" * 32, "-o", "json", check=False)
        spans = json.loads(done.stdout)["spans"] if done.returncode == 0 else []
        return any(list(_way_up(spans, span)) == wanted for span in spans)

    until(whole)


def test_jason_alone_is_routed_to_reviews_v2(clean_bookinfo):
    apply_task(clean_bookinfo, "destination-rule-all", "virtual-service-all-v1")
    apply_task(clean_bookinfo, "virtual-service-reviews-test-v2")
    jason = clean_bookinfo.login("jason")
    assert {clean_bookinfo.served_by() for _ in range(5)} == {"reviews-v1"}
    assert {clean_bookinfo.served_by(jason) for _ in range(5)} == {"reviews-v2"}


def test_an_abort_for_jason_hides_the_stars_from_him_alone(clean_bookinfo):
    apply_task(clean_bookinfo, "destination-rule-all", "virtual-service-all-v1")
    apply_task(clean_bookinfo, "virtual-service-reviews-test-v2", "virtual-service-ratings-test-abort")
    jason = clean_bookinfo.login("jason")
    assert "Ratings service is currently unavailable" in clean_bookinfo.page(jason)
    assert "Ratings service is currently unavailable" not in clean_bookinfo.page()


@pytest.mark.parametrize(
    ("task", "expected"),
    [("reviews-50-v3", {"reviews-v1": 0.5, "reviews-v3": 0.5}), ("reviews-80-20", {"reviews-v1": 0.8, "reviews-v2": 0.2})],
)
def test_traffic_shifts_as_far_as_the_task_says(clean_bookinfo, task, expected):
    apply_task(clean_bookinfo, "destination-rule-all", f"virtual-service-{task}")
    rounds = 200
    url = "http://reviews:9080/reviews/0"
    done = clean_bookinfo.devmesh("curl", "productpage", url, *[url] * (rounds - 1), "-w", "\n")
    seen = Counter(re.findall(r'"podname": "([^"]+)"', done.stdout))
    assert sum(seen.values()) == rounds
    assert set(seen) == set(expected)
    assert all(plausible(seen[pod], share, rounds) for pod, share in expected.items()), seen


def test_a_fault_degrades_the_page_counts_its_hits_and_clear_heals_it(clean_bookinfo):
    apply_task(clean_bookinfo, "destination-rule-all", "virtual-service-all-v1")
    apply_task(clean_bookinfo, "virtual-service-reviews-test-v2")
    jason = clean_bookinfo.login("jason")
    clean_bookinfo.devmesh("fault", "inject", "ratings", "--abort", "503", "--percent", "100")
    clean_bookinfo.devmesh("curl", "reviews-v2", "http://ratings:9080/ratings/0")
    (fault,) = clean_bookinfo.json("fault", "list")["faults"]
    assert fault["hits"] == 1
    assert "Ratings service is currently unavailable" in clean_bookinfo.page(jason)
    until(lambda: any("ratings.default" in one["services"] for one in clean_bookinfo.json("traces", "list", "--errors")["traces"]))
    until(lambda: " 503 FI fault_filter_abort " in clean_bookinfo.devmesh("logs", "ratings", "--access").stdout)
    # The page asks reviews again when the first answer takes longer than it waits (apps/productpage.py), so it is one or two.
    assert re.search(r"fired [23] times", clean_bookinfo.devmesh("fault", "clear").stdout)
    assert "Ratings service is currently unavailable" not in clean_bookinfo.page(jason)


def test_a_delay_counts_its_hits_too(clean_bookinfo):
    clean_bookinfo.devmesh("fault", "inject", "details", "--delay", "10ms")
    assert '"ISBN-10"' in clean_bookinfo.devmesh("curl", "productpage", "http://details:9080/details/0").stdout
    (fault,) = clean_bookinfo.json("fault", "list")["faults"]
    assert fault["hits"] == 1
    assert "fired 1 time" in clean_bookinfo.devmesh("fault", "clear").stdout


def test_with_retries_every_attempt_at_a_failing_service_is_seen(clean_bookinfo):
    retries = "spec: {hosts: [ratings], http: [{route: [{destination: {host: ratings}}], retries: {attempts: 3, retryOn: 5xx}}]}"
    clean_bookinfo.devmesh(
        "apply", "-f", "-", stdin=f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: ratings}}\n{retries}\n"
    )
    clean_bookinfo.devmesh("fault", "inject", "ratings", "--abort", "503")
    assert (
        clean_bookinfo.devmesh(
            "curl", "reviews-v2", "http://ratings:9080/ratings/0", "-o", "/dev/null", "-w", "%{http_code}",
            "-H", f"traceparent: 00-{'b' * 32}-{'3' * 16}-01",
        ).stdout
        == "503"
    )  # fmt: skip
    (fault,) = clean_bookinfo.json("fault", "list")["faults"]
    assert fault["hits"] == 4

    def failed() -> Counter[tuple[str, str]]:
        done = clean_bookinfo.devmesh("traces", "show", "b" * 32, "-o", "json", check=False)
        spans = json.loads(done.stdout)["spans"] if done.returncode == 0 else []
        return Counter((one["service"], one["attributes"].get("devmesh.fault", "")) for one in spans if one["error"])

    # The whole call and its four attempts; at the callee each by the fault's name.
    until(lambda: failed() == {("reviews.default", ""): 5, ("ratings.default", fault["id"]): 4})
    shown = clean_bookinfo.devmesh("traces", "show", "b" * 32).stdout
    assert "  | VirtualService ratings sent it to outbound|9080||ratings.default.svc.cluster.local: -:4:33\n  | URX: " in shown
    log = clean_bookinfo.devmesh("logs", "reviews-v2", "--access").stdout.splitlines()[-1]
    request = re.findall(r'"([0-9a-f-]{36})"', log)[-1]
    assert clean_bookinfo.devmesh("traces", "show", request).stdout == shown


def test_a_fault_at_an_unknown_service_is_an_error_with_a_suggestion(bookinfo):
    done = bookinfo.devmesh("fault", "inject", "ratingz", "--abort", "503", check=False)
    assert done.returncode == 1
    assert "hint: did you mean ratings?" in done.stderr


def test_strict_mtls_closes_plain_http_and_keeps_the_mesh_working(clean_bookinfo):
    url = clean_bookinfo.json("status")["urls"]["services"]["details"]
    plain = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/details/0"]
    assert subprocess.run(plain, capture_output=True, text=True, check=False).stdout == "200"
    strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"
    clean_bookinfo.devmesh("apply", "-f", "-", stdin=strict)
    assert subprocess.run(plain, capture_output=True, text=True, check=False).returncode != 0
    assert clean_bookinfo.json("status")["urls"]["services"]["details"] == "mtls only"
    assert "PublisherA" in clean_bookinfo.page()


def test_unknown_fields_are_refused_with_their_place(bookinfo):
    text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  hosts: [reviews]\n  http:\n  - rout:\n    - destination: {host: reviews}\n"
    done = bookinfo.devmesh("apply", "-f", "-", check=False, stdin=text)
    assert done.returncode == 1
    assert "-:7" in done.stderr
    assert "route" in done.stderr


def test_a_foreign_host_header_at_an_admin_port_is_refused(bookinfo):
    port = bookinfo.state()["ports"]["control"]
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: evil.example", f"http://127.0.0.1:{port}/v1/status"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "403"


SECURE_GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [bookinfo.example]
    tls: {mode: MUTUAL, credentialName: bookinfo-credential}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure}
spec:
  hosts: [bookinfo.example]
  gateways: [secure]
  http:
  - route: [{destination: {host: productpage, port: {number: 9080}}}]
"""


def test_https_at_the_gateway_is_as_istios_task_shows_it_and_no_key_is_seen(clean_bookinfo, tmp_path):
    ca, port = WebCa(), clean_bookinfo.state()["gateway_https_port"]
    server, client = ca.pair("bookinfo.example"), ca.pair("client.example")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bookinfo-credential", "namespace": "istio-system"},
        "stringData": {"tls.crt": server.certificate, "tls.key": server.key, "ca.crt": ca.pem},
    }
    for name, text in (("ca.pem", ca.pem), ("client.pem", client.certificate), ("client.key", client.key)):
        (tmp_path / name).write_text(text)
    clean_bookinfo.devmesh("apply", "-f", "-", stdin=f"{json.dumps(secret)}\n---\n{SECURE_GATEWAY}")
    url = f"https://bookinfo.example:{port}/productpage"
    curl = ["curl", "-s", "-m", "10", "--cacert", tmp_path / "ca.pem", "--resolve", f"bookinfo.example:{port}:127.0.0.1", url]
    assert subprocess.run(curl, capture_output=True, check=False).returncode != 0
    known = [*curl, "--cert", tmp_path / "client.pem", "--key", tmp_path / "client.key"]
    assert "Book Reviews" in subprocess.run(known, capture_output=True, text=True, check=True).stdout
    shown = clean_bookinfo.devmesh("get", "secret", "-o", "yaml").stdout
    shown += clean_bookinfo.devmesh("proxy-config", "all", "istio-ingressgateway", "-o", "json", check=False).stdout
    assert "[redacted]" in shown
    assert not any(line in shown for line in server.key.splitlines()[1:-1])


# The last two: what they delay by seconds reaches ratings when they are over, and other tests count what arrives there.
def test_a_request_timeout_at_reviews_loses_the_reviews(clean_bookinfo):
    apply_task(clean_bookinfo, "destination-rule-all", "request-timeouts")
    assert "Sorry, product reviews are currently unavailable" in clean_bookinfo.page()


def test_a_delay_longer_than_the_page_waits_shows_the_bug_of_the_task(clean_bookinfo):
    apply_task(clean_bookinfo, "destination-rule-all", "virtual-service-all-v1")
    apply_task(clean_bookinfo, "virtual-service-reviews-test-v2", "virtual-service-ratings-test-delay")
    assert "Sorry, product reviews are currently unavailable" in clean_bookinfo.page(clean_bookinfo.login("jason"))
