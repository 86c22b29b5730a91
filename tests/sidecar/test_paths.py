"""Every row was asked of Envoy 1.40 with `normalize_path` and `KEEP_UNCHANGED`."""

import pytest

from devmesh.sidecar.paths import normalized

SPELLINGS = [
    ("/a/../b", "/b", "two dots go up"),
    ("/a/./b", "/a/b", "one dot stays"),
    ("/a/b/..", "/a/", "at the end a slash is left"),
    ("/a/b/.", "/a/b/", "for one dot too"),
    ("/../x", "/x", "nothing is above the root"),
    ("/a/b/../../../c", "/c", "however often it is tried"),
    ("/a/%2e%2e/b", "/b", "escaped dots are dots"),
    ("/a/%2E./b", "/b", "in any case and mixture"),
    ("//a//b", "//a//b", "slashes are not merged"),
    ("/a//../b", "/a/b", "an empty segment is one"),
    ("/a\\b", "/a/b", "a backslash is a slash"),
    ("/a/..\\b", "/b", "also behind dots"),
    ("/%41%7e%2d", "/A~-", "unreserved characters are unescaped"),
    ("/%2a%61", "/%2aa", "others are not"),
    ("/%2F%2f", "/%2F%2f", "an escaped slash stays what it is"),
    ("/%5c", "/%5c", "so does an escaped backslash"),
    ("/a%20b", "/a%20b", "and a space"),
    ("/a/%252e%252e/b", "/a/%252e%252e/b", "nothing is unescaped twice"),
    ("/a%zz", "/a%zz", "what is no escape stays"),
    ("/a%", "/a%", "at the end too"),
    ("/%c3%a9", "/%c3%a9", "bytes of UTF-8 stay escaped"),
    ('/a<b>"`{}|^', "/a%3Cb%3E%22%60%7B%7D%7C%5E", "what no URL holds is escaped"),
    ("/a'()*!$&,:@+=~_-.", "/a'()*!$&,:@+=~_-.", "what it may hold is not"),
    ("/a;b=1/../c", "/c", "parameters belong to their segment"),
    ("/a/...", "/a/...", "three dots are a name"),
    ("/..a", "/..a", "so are dots and a letter"),
    ("/a?x=/../b", "/a?x=/../b", "a query is not a path"),
    ("/a/../b?y=%2e", "/b?y=%2e", "and stays as it is"),
    ("/", "/", "the root"),
    ("*", "*", "no path at all (OPTIONS *)"),
]


@pytest.mark.parametrize(("target", "expected", "why"), SPELLINGS)
def test_a_path_has_one_spelling(target, expected, why):
    assert normalized(target.encode(), merge_slashes=False) == expected.encode(), why


@pytest.mark.parametrize("target", ["/%00", "/a#frag", "/a%00b?q"])
def test_a_path_that_hides_something_is_refused(target):
    assert normalized(target.encode(), merge_slashes=False) is None


def test_slashes_are_merged_when_asked_for():
    assert normalized(b"//a///b/../c//?x=//", merge_slashes=True) == b"/a/c/?x=//"


@pytest.mark.parametrize("target", [b"/a/b?c", b"/a/../b", b"/%41/./c"])
def test_normalizing_twice_changes_nothing_more(target):
    once = normalized(target, merge_slashes=True)
    assert once is not None
    assert normalized(once, merge_slashes=True) == once
