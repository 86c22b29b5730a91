import pytest

from devmesh.config.loader import load_paths, load_text, load_value
from devmesh.config.model import ResourceKey
from tests.config.bookinfo import load

BROKEN = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  labels: {a: yes}
spec:
  hosts: reviews
  http:
  - match:
    - headers:
        end-user: {exakt: jason}
      port: "80"
    timeout: 5
    retrys: {}
    retries: {attempts: 1, perTryTimeout: 1}
    fault: {delay: {fixedDelay: 1x}}
---
apiVersion: networking.istio.io/v1
kind: VirtualServce
metadata: {name: x}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: x}
spec:
  mtls: {mode: strict}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
spec: {host: reviews, subsets: [{name: v1}], trafficPolicy: {tls: {mode: ISTIO_MUTAL}}}
"""


def test_everything_wrong_is_reported_at_once_with_its_place():
    loaded = load_text(BROKEN, "-")
    assert not loaded.resources
    # fmt: off
    assert [f"{one.where} {one.message} | {one.hint}" for one in loaded.diagnostics] == [
        "-:5:12 metadata.labels.a must be text, not True | put the value in quotes",
        '-:7:3 spec.hosts must be a list, not "reviews" | begin each item with "- "',
        '-:11:20 unknown field "spec.http[0].match[0].headers.end-user.exakt" | did you mean "exact"?',
        '-:12:7 spec.http[0].match[0].port must be a whole number, not "80" | take the quotes off',
        '-:13:5 spec.http[0].timeout: 5 is not a duration: write a number and its unit in quotes, such as "0.5s" | None',
        '-:14:5 unknown field "spec.http[0].retrys" | did you mean "retries"?',
        '-:15:28 spec.http[0].retries.perTryTimeout: 1 is not a duration: write a number and its unit in quotes, such as "0.5s" | None',
        '-:16:21 spec.http[0].fault.delay.fixedDelay: "1x" is not a duration: write a number and its unit, such as "0.5s", "1m" or "300ms" | None',
        '-:19:1 unknown kind "VirtualServce" in "networking.istio.io" | did you mean "VirtualService"?',
        '-:26:10 spec.mtls.mode: "strict" is not one of UNSET, DISABLE, PERMISSIVE, STRICT | did you mean "STRICT"?',
        "-:28:1 metadata.name is missing | add metadata: {name: ...}",
        '-:30:68 spec.trafficPolicy.tls.mode: "ISTIO_MUTAL" is not one of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL | did you mean "ISTIO_MUTUAL"?',
    ]
    # fmt: on


def test_a_valid_document_becomes_a_resource_with_model_places_and_order():
    loaded = load("""\
        apiVersion: networking.istio.io/v1beta1
        kind: VirtualService
        metadata: {name: reviews, namespace: shop, labels: {team: a}}
        spec:
          hosts: [reviews]
          http:
          - timeout: 1m
            route:
            - destination: {host: reviews}
        ---
        apiVersion: networking.istio.io/v1alpha3
        kind: DestinationRule
        metadata: {name: reviews}
        spec: {host: reviews}
        """)
    assert not loaded.diagnostics
    first, second = loaded.resources
    assert first.key == ResourceKey("networking.istio.io", "VirtualService", "shop", "reviews")
    assert first.spec.http[0].timeout == 60.0
    assert first.meta.labels == {"team": "a"}
    assert str(first.position("spec.http[0].route[0].destination.host")) == "mesh.yaml:9:21"
    assert (second.order, second.meta.namespace, second.owner) == (1, "default", "apply")


def test_a_duplicate_names_both_places_and_the_first_stays(tmp_path):
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yml").write_text(text)
    (tmp_path / "note.txt").write_text("not YAML: [")
    loaded = load_paths([tmp_path])
    assert [one.file for one in loaded.resources] == [str(tmp_path / "a.yaml")]
    assert f"PeerAuthentication default/default is defined twice: first at {tmp_path}/a.yaml:3:12" in loaded.diagnostics[0].message
    assert str(loaded.diagnostics[0].where) == f"{tmp_path}/b.yml:3:12"


def test_what_cannot_be_read_is_a_diagnostic(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    loaded = load_paths([tmp_path / "missing.yaml", tmp_path / "binary.yaml", tmp_path / "empty"])
    assert ["No such file" in one.message or "UTF-8" in one.message or "no *.yaml" in one.message for one in loaded.diagnostics] == [
        True
    ] * 3


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "RequestAuthentication"])
def test_kinds_that_are_unsafe_to_ignore_are_errors(kind):
    loaded = load(f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{anything: 1}}\n")
    assert [one.code for one in loaded.errors] == ["DM0006"]


def test_kinds_not_yet_supported_are_warnings_and_kubernetes_own_are_left_alone():
    loaded = load("""\
        {apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: x}, spec: {template: {}}}
        ---
        {apiVersion: v1, kind: Service, metadata: {name: x}}
        ---
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}
        """)
    assert [(one.severity, one.code) for one in loaded.diagnostics] == [("warning", "DM0005"), ("warning", "DM0009"), ("warning", "DM0009")]
    assert loaded.resources[0].spec is None


@pytest.mark.parametrize(
    ("api_version", "kind", "message", "hint"),
    [
        ("networking.istio.io/v2", "Gateway", 'Gateway has no version "v2"', None),
        ("security.istio.io/v1", "VirtualService", 'no kind "VirtualService" in "security.istio.io"', "networking.istio.io"),
        ("example.com/v1", "Thing", 'unknown kind "Thing" in "example.com"', None),
    ],
)
def test_an_unknown_kind_or_version_says_what_exists(api_version, kind, message, hint):
    (found,) = load(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n").diagnostics
    assert message in found.message
    assert hint is None or hint in (found.hint or "")


@pytest.mark.parametrize(
    ("document", "messages"),
    [
        ("[1, 2]", ["a resource is a mapping"]),
        ("{kind: Gateway}", ["apiVersion is missing or not text"]),
        ("{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: Bad_Name}, spec: []}", ["not a name"]),
        (
            "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a, lables: {}}, specs: {}}",
            ['"specs"', '"metadata.lables"'],
        ),
        ("{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a, namespace: a.b}}", ["metadata.namespace"]),
        ("{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a, labels: [x]}}", ["metadata.labels must be a mapping"]),
    ],
)
def test_the_frame_of_a_document_is_checked_too(document, messages):
    found = [one.message for one in load(document).errors]
    assert len(found) == len(messages)
    assert all(any(message in one for one in found) for message in messages)


def test_a_list_is_taken_apart_and_null_means_not_given():
    loaded = load("""\
        apiVersion: v1
        kind: List
        items:
        - apiVersion: networking.istio.io/v1
          kind: VirtualService
          metadata: {name: a}
          spec:
            hosts: [a]
            gateways: null
            http: [{timeout: null, route: [{destination: {host: a}}]}]
        - {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: b}, spec: {servres: []}}
        """)
    assert loaded.resources[0].spec.http[0].timeout is None
    assert loaded.resources[0].position("spec.hosts").line == 8
    assert str(loaded.diagnostics[0]) == 'mesh.yaml:11:83: error [IST0106] unknown field "spec.servres"'


def test_a_document_out_of_the_registry_keeps_the_places_of_its_own_file():
    document = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "b"}, "spec": {"servers": []}}
    loaded = load_value(document, "mesh/b.yaml", owner="mesh", lines={"spec": 12}, columns={"spec": 1})
    assert str(loaded.resources[0].position("spec.servers")) == "mesh/b.yaml:12:1"
    assert loaded.resources[0].owner == "mesh"
