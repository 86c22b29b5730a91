"""Header edits; the rows were asked of Envoy 1.40."""

import pytest

from devmesh.sidecar.config import HeaderEdit
from devmesh.sidecar.filters.headers import EditContext, apply_edits, expand, unknown_operator

APPEND, OVERWRITE = "APPEND_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS_OR_ADD"
REQUEST = [(b"x-long", b"abcdef"), (b"x-b", b"bee"), (b"x-a", b"old")]


def context(request=None):
    return EditContext(
        request if request is not None else REQUEST,
        [(b"x-keep", b"1")],
        "10.0.0.9:5000",
        "240.240.0.1:9080",
        upstream_host="127.7.0.3:9080",
        method=b"GET",
        authority=b"reviews",
        target=b"/order?q=1",
        status=200,
        route_name="rn",
    )


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        (b"plain", b"plain", "no operator"),
        (b"50%%", b"50%", "a percent sign is doubled"),
        (b"%REQ(X-B)%", b"bee", "a request header in any case"),
        (b"%REQ(nope)%", b"", "an absent one is empty"),
        (b"a-%REQ(nope)%-b", b"a--b", "within text too"),
        (b"%REQ(nope?x-b)%", b"bee", "an alternative"),
        (b"%REQ(x-long):3%", b"abc", "a part"),
        (b"%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)%", b"GET /order?q=1 reviews", "pseudo-headers"),
        (b"%RESP(x-keep)%", b"1", "a response header"),
        (b"%RESP(nope)%", b"", "an absent one is empty"),
        (b"%RESPONSE_CODE%|%ROUTE_NAME%|%PROTOCOL%", b"200|rn|HTTP/1.1", "what is known of the exchange"),
        (b"%DOWNSTREAM_REMOTE_ADDRESS%", b"10.0.0.9:5000", "the caller"),
        (b"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", b"10.0.0.9", "without its port"),
        (b"%DOWNSTREAM_LOCAL_ADDRESS%", b"240.240.0.1:9080", "where it went"),
        (b"%DOWNSTREAM_LOCAL_PORT%", b"9080", "the port alone"),
        (b"%UPSTREAM_HOST%", b"127.7.0.3:9080", "who answered"),
    ],
)
def test_operators_are_replaced(text, expected, why):
    assert unknown_operator(text) is None
    assert expand(text, context()) == expected, why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"%CEL(request.path)%", b"%CEL(request.path)%"),
        (b"%PROTOCOL% %HOSTNAME%", b"%HOSTNAME%"),
        (b"100%", b"%"),
        (b"50%% %REQ(a)%", None),
        (b"plain", None),
    ],
)
def test_an_operator_that_is_unknown_is_found(text, expected):
    assert unknown_operator(text) == expected


@pytest.mark.parametrize(
    ("before", "edit", "after", "why"),
    [
        ([("x", "1")], HeaderEdit(b"x", b"2", APPEND), [("x", "1"), ("x", "2")], "append adds a line"),
        ([], HeaderEdit(b"x", b"2", APPEND), [("x", "2")], "also where there is none"),
        ([("x", "1"), ("x", "3")], HeaderEdit(b"x", b"2", OVERWRITE), [("x", "2")], "overwrite replaces all"),
        ([], HeaderEdit(b"x", b"2", OVERWRITE), [("x", "2")], "or adds"),
        ([("x", "1")], HeaderEdit(b"x", b"2", "ADD_IF_ABSENT"), [("x", "1")], "what is there stays"),
        ([], HeaderEdit(b"x", b"2", "ADD_IF_ABSENT"), [("x", "2")], "what is not is added"),
        ([("x", "1")], HeaderEdit(b"x", b"2", "OVERWRITE_IF_EXISTS"), [("x", "2")], "what is there is replaced"),
        ([], HeaderEdit(b"x", b"2", "OVERWRITE_IF_EXISTS"), [], "what is not is not added"),
        ([("x", "1")], HeaderEdit(b"x", b"", OVERWRITE), [("x", "1")], "an empty value changes nothing"),
        ([("x", "1")], HeaderEdit(b"x", b"", OVERWRITE, keep_empty=True), [("x", "")], "unless it is kept"),
        ([], HeaderEdit(b"x", b"%REQ(nope)%", APPEND), [], "a value that comes out empty is left out"),
    ],
)
def test_an_edit(before, edit, after, why):
    headers = [(name.encode(), value.encode()) for name, value in before]
    apply_edits(headers, (edit,), (), context())
    assert headers == [(name.encode(), value.encode()) for name, value in after], why


def test_removals_come_first_and_operators_see_no_addition():
    headers = [(b"x-a", b"old"), (b"x-b", b"old"), (b"x-b", b"twice")]
    add = (HeaderEdit(b"x-a", b"new", APPEND), HeaderEdit(b"x-c", b"%REQ(X-A)%", APPEND), HeaderEdit(b"x-d", b"d", APPEND))
    apply_edits(headers, add, (b"x-a", b"x-b"), context(headers))
    assert headers == [(b"x-a", b"new"), (b"x-d", b"d")]
