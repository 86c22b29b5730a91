import pytest

from devmesh.config.yaml import read_documents


def value(text):
    documents, diagnostics = read_documents(text, "a.yaml")
    assert not diagnostics
    return documents[0].value


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", True), ("n", False), ("Off", False), ("'yes'", "yes"), ("!!str yes", "yes"), ("010", 8), ("0o10", 8), ("0x1F", 31),
        ("1_000", 1000), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("1.5", 1.5), ("1e3", 1000.0), (".inf", float("inf")), ("~", None),
        ("", None), ("v1", "v1"), ("-7", -7), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_kubectl_reads_them(written, read):
    assert value(f"key: {written}\n") == {"key": read}


def test_a_bare_boolean_key_becomes_text_as_for_kubectl():
    assert value("n: 1\nyes: 2\n80: 3\n") == {"false": 1, "true": 2, "80": 3}


def test_json_escapes_above_the_basic_plane_are_one_character():
    assert value('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_compose_knows_two_booleans_only():
    documents, _ = read_documents("y: yes\nn: [on, true, False]\n", "compose.yaml", compose=True)
    assert documents[0].value == {"y": "yes", "n": ["on", True, False]}


def test_every_key_and_item_has_its_line_and_column_in_the_file():
    documents, _ = read_documents("# one\n---\na: 1\n---\n# two\nb:\n  - c: x\n    d: [1, {e: 2}]\n", "a.yaml")
    second = documents[1]
    assert [str(second.position(path)) for path in ("b", "b[0]", "b[0].c", "b[0].d[1].e")] == [
        "a.yaml:6:1",
        "a.yaml:7:5",
        "a.yaml:7:5",
        "a.yaml:8:13",
    ]


def test_a_mistake_in_one_document_hides_nothing_in_the_others():
    documents, diagnostics = read_documents("a: 1\n---\nb: [\n---\nc: 3\n---\n\td: 4\n", "a.yaml")
    assert [one.value for one in documents] == [{"a": 1}, {"c": 3}]
    assert [str(one.where) for one in diagnostics] == ["a.yaml:4:1", "a.yaml:7:1"]
    assert diagnostics[1].hint == "indent with spaces: YAML allows no tab there"


def test_a_key_given_twice_is_an_error_that_names_both_lines():
    documents, diagnostics = read_documents("a:\n  b: 1\n  c: 2\n  b: 3\n", "a.yaml")
    assert documents[0].faulty
    assert str(diagnostics[0]) == 'a.yaml:4:3: error [DM0002] "a.b" is given twice: first on line 2, again here'


def test_anchors_aliases_and_merge_keys_are_followed():
    assert value("base: &b {x: 1, z: 2}\none: *b\ntwo: {<<: *b, z: 3}\n")["two"] == {"x": 1, "z": 3}


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "\n".join(["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)])]
)
def test_aliases_that_never_end_are_refused(text):
    _, diagnostics = read_documents(text, "a.yaml")
    assert any("alias" in one.message for one in diagnostics)


def test_empty_documents_comments_directives_and_a_byte_order_mark_are_nothing():
    documents, diagnostics = read_documents("\ufeff%YAML 1.1\n---\n# nothing\n---\na: 1\n...\n---\n", "a.yaml")
    assert [one.value for one in documents] == [{"a": 1}]
    assert not diagnostics


def test_a_separator_inside_a_block_text_of_a_deeper_line_does_not_split():
    assert value("a: |\n  ---\n  b\n") == {"a": "---\nb\n"}


def test_nesting_without_end_is_a_diagnostic():
    _, diagnostics = read_documents("[" * 5000, "a.yaml")
    assert "cannot be read as YAML" in diagnostics[0].message
