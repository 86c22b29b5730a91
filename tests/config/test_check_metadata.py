import pytest

from tests.config.bookinfo import said

ROUTE = "spec: {host: reviews}}"


def about(metadata):
    return said(f"{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: a, {metadata}}},\n{ROUTE}\n")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("labels: {a b: c}", 'metadata.labels.a b: invalid label name "a b"'),
        ("labels: {a: b c}", 'metadata.labels.a: invalid label value "b c"'),
        (f"labels: {{a: {'x' * 64}}}", "metadata.labels.a: must have at most 63 characters, has 64"),
        ("annotations: {a b: c}", 'metadata.annotations.a b: invalid annotation name "a b"'),
        ("annotations: {istio.io/dry-run: 'true'}", "metadata.annotations.istio.io/dry-run: unsupported annotation"),
        ("annotations: {internal.istio.io/parents: a}", "may not be set by users"),
    ],
)
def test_what_kubernetes_or_istiod_refuse_of_metadata_is_refused_where_it_stands(metadata, says):
    (found,) = about(metadata)
    assert found.startswith("1:")
    assert "error IST0106" in found
    assert says in found


def test_labels_and_annotations_are_free_otherwise():
    assert about("labels: {app.kubernetes.io/name: a_b.C}, annotations: {example.com/a: 'any thing'}") == []
