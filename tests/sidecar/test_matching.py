import re

import pytest

from devmesh.sidecar.config import ConfigError
from devmesh.sidecar.matching import fraction, header_matcher, path_matcher, query_matcher, regex_rewrite, string_predicate, substitution


@pytest.mark.parametrize(
    ("matcher", "value", "expected", "why"),
    [
        ({"exact": "a"}, b"a", True, "the same"),
        ({"exact": "a"}, b"A", False, "case counts"),
        ({"exact": "a", "ignore_case": True}, b"A", True, "unless it is ignored"),
        ({"exact": "a"}, None, False, "nothing is not a value"),
        ({"prefix": "a"}, b"ab", True, "a beginning"),
        ({"prefix": "A", "ignore_case": True}, b"ab", True, "in any case"),
        ({"suffix": "b"}, b"ab", True, "an end"),
        ({"suffix": "B", "ignore_case": True}, b"ab", True, "in any case"),
        ({"contains": "b"}, b"abc", True, "a middle"),
        ({"contains": "B", "ignore_case": True}, b"abc", True, "in any case"),
        ({"safe_regex": {"regex": "b+"}}, b"bb", True, "a whole match"),
        ({"safe_regex": {"regex": "b+"}}, b"abb", False, "never a part"),
        ({"safe_regex": {"regex": "a.c"}}, b"a\xffc", False, "RE2 reads UTF-8"),
        ({"safe_regex": {"regex": ".*"}}, None, False, "nothing is not a value"),
    ],
)
def test_a_string_matcher(matcher, value, expected, why):
    assert string_predicate("r", matcher)(value) is expected, why


def test_an_unknown_string_matcher_is_refused():
    with pytest.raises(ConfigError, match=r"string matcher \['custom'\] is not supported"):
        string_predicate("r", {"custom": {}})


def test_a_regex_that_re2_refuses_is_the_resources_mistake_and_is_not_printed(capfd):
    with pytest.raises(ConfigError, match="is not RE2"):
        string_predicate("r", {"safe_regex": {"regex": r"(a)\1"}})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("matcher", "value", "expected", "why"),
    [
        ({}, b"", True, "no condition asks for presence"),
        ({}, None, False, "which absence fails"),
        ({"present_match": True}, b"x", True, "presence"),
        ({"present_match": False}, None, True, "absence"),
        ({"present_match": False}, b"x", False, "absence, when it is there"),
        ({"present_match": True, "invert_match": True}, None, True, "absence, the other way to say it"),
        ({"string_match": {"exact": "q"}, "invert_match": True}, b"z", True, "another value"),
        ({"string_match": {"exact": "q"}, "invert_match": True}, b"", True, "an empty value is another value"),
        ({"string_match": {"exact": "q"}, "invert_match": True}, b"q", False, "that value"),
        ({"string_match": {"exact": "q"}, "invert_match": True}, None, False, "absence matches no value, inverted or not (observed)"),
        (
            {"string_match": {"exact": "q"}, "invert_match": True, "treat_missing_header_as_empty": True},
            None,
            True,
            "unless it is an empty value",
        ),
        ({"string_match": {"exact": ""}, "treat_missing_header_as_empty": True}, None, True, "which may be asked for"),
        ({"range_match": {"start": 1, "end": 10}}, b"5", True, "inside"),
        ({"range_match": {"start": "1", "end": "10"}}, b"+5", True, "a sign is part of a number"),
        ({"range_match": {"start": 1, "end": 10}}, b"10", False, "the end is outside"),
        ({"range_match": {"start": 1, "end": 10}}, b"5.0", False, "whole numbers only"),
        ({"range_match": {"start": 1, "end": 10}}, b"5_0", False, "no Python spelling"),
        ({"range_match": {"start": 1, "end": 10}}, b"0x5", False, "no hexadecimal"),
        ({"exact_match": "a"}, b"a", True, "the old spelling of exact"),
        ({"prefix_match": "a"}, b"ab", True, "of prefix"),
        ({"suffix_match": "b"}, b"ab", True, "of suffix"),
        ({"contains_match": "b"}, b"abc", True, "of contains"),
        ({"safe_regex_match": {"regex": "a.*"}}, b"abc", True, "of regex"),
    ],
)
def test_a_header_matcher(matcher, value, expected, why):
    found = header_matcher("r", {"name": "X-A", **matcher})
    assert found.name == b"x-a"
    assert found.matches(value) is expected, why
    assert found.inverted is bool(matcher.get("invert_match"))


def test_a_query_matcher_without_condition_asks_for_presence():
    found = query_matcher("r", {"name": "Q"})
    assert (found.name, found.matches(b""), found.matches(None)) == (b"Q", True, False)


@pytest.mark.parametrize(
    ("match", "path", "expected", "why"),
    [
        ({"prefix": "/a"}, b"/abc", True, "a prefix knows no segments"),
        ({"prefix": "/A", "case_sensitive": False}, b"/abc", True, "nor case, if so said"),
        ({"path": "/a"}, b"/a", True, "the whole path"),
        ({"path": "/a"}, b"/a/", False, "and nothing more"),
        ({"path": "/A", "case_sensitive": False}, b"/a", True, "in any case"),
        ({"path_separated_prefix": "/a"}, b"/a", True, "the segment itself"),
        ({"path_separated_prefix": "/a"}, b"/a/b", True, "and below it"),
        ({"path_separated_prefix": "/a"}, b"/ab", False, "not another segment"),
        ({"path_separated_prefix": "/A", "case_sensitive": False}, b"/a/b", True, "in any case"),
        ({"safe_regex": {"regex": "/a/[0-9]+"}}, b"/a/17", True, "a whole match"),
        ({"safe_regex": {"regex": "/a"}}, b"/ab", False, "never a part"),
    ],
)
def test_a_path_matcher(match, path, expected, why):
    assert path_matcher("r", match).matches(path) is expected, why


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(None, 0.0), ({}, 0.0), ({"numerator": 25}, 0.25), ({"numerator": 1, "denominator": "MILLION"}, 1e-6), ({"numerator": 101}, 1.0)],
)
def test_a_fractional_percent(percent, expected):
    assert fraction(percent) == expected


def test_an_unknown_denominator_is_a_mistake():
    with pytest.raises(KeyError):
        fraction({"numerator": 1, "denominator": "DOZEN"})


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        (r"<\0>", b"<ab>", "the whole match"),
        (r"\2\1", b"ba", "its groups"),
        (r"\\1", rb"\1", "an escaped backslash"),
        ("plain", b"plain", "no reference"),
        (r"\n", rb"\n", "RE2 knows no other escapes"),
    ],
)
def test_an_re2_rewrite(text, expected, why):
    assert substitution("r", text, 2)(re.fullmatch(rb"(a)(b)", b"ab")) == expected, why


@pytest.mark.parametrize(
    ("regex", "text", "path", "expected", "why"),
    [
        ("x*", "-", b"/rx/axxb", b"-/-r-/-a-b-", "an empty match does not follow another match (observed)"),
        ("b", "", b"/abcb", b"/ac", "everywhere"),
        ("^/", "//", b"/a/b", b"//a/b", "or at the beginning"),
        ("q", "z", b"/a", b"/a", "or nowhere"),
    ],
)
def test_a_regex_rewrite(regex, text, path, expected, why):
    assert regex_rewrite("r", regex, text)(path) == expected, why


def test_a_rewrite_cannot_refer_to_a_group_that_is_not_there():
    with pytest.raises(ConfigError, match="refers to a group that the regex does not have"):
        regex_rewrite("r", "(a)", r"\2")
