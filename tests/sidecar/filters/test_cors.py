"""CORS; the rows were asked of Envoy 1.40."""

import pytest

from devmesh.sidecar.config import CorsPolicy
from devmesh.sidecar.filters.cors import allowed_origin, on_response, preflight
from devmesh.sidecar.matching import exactly, starts_with
from tests.sidecar.snapshots import head

A = ("origin", "http://a")
B = ("origin", "http://b")
ASKS = ("access-control-request-method", "GET")


def policy(**fields):
    defaults = {
        "allow_origin": (exactly(b"http://a"),),
        "allow_methods": b"GET",
        "allow_headers": b"x",
        "expose_headers": b"y",
        "max_age": b"10",
        "allow_credentials": True,
    }
    return CorsPolicy(**{**defaults, **fields})


FULL = [
    (b"access-control-allow-origin", b"http://a"),
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-allow-methods", b"GET"),
    (b"access-control-allow-headers", b"x"),
    (b"access-control-max-age", b"10"),
]  # `on_response` adds the exposed headers, as to every answer


@pytest.mark.parametrize(
    ("found", "request_head", "expected", "why"),
    [
        (policy(), head("/", A, ASKS, method="OPTIONS"), FULL, "a preflight that is allowed"),
        (
            policy(allow_methods=b"", allow_headers=b"", expose_headers=b"", max_age=b"", allow_credentials=False),
            head("/", A, ASKS, method="OPTIONS"),
            FULL[:1],
            "only what the policy says",
        ),
        (policy(), head("/", A, method="OPTIONS"), None, "without a method asked for it is no preflight"),
        (policy(), head("/", A, ASKS), None, "nor is a GET"),
        (policy(), head("/", B, ASKS, method="OPTIONS"), None, "another origin's goes to the app"),
        (
            policy(forward_not_matching_preflights=False),
            head("/", B, ASKS, method="OPTIONS"),
            FULL[1:],
            "or is answered without the origin",
        ),
        (policy(), head("/", A, ("access-control-request-method", ""), method="OPTIONS"), None, "nor with an empty one"),
        (
            policy(forward_not_matching_preflights=False),
            head("/", ("origin", ""), ASKS, method="OPTIONS"),
            None,
            "an empty origin is none",
        ),
        (
            policy(allow_methods=b"*", allow_headers=b"*"),
            head("/", A, ("access-control-request-method", "PUT"), ("access-control-request-headers", "a, b"), method="OPTIONS"),
            [*FULL[:2], (b"access-control-allow-methods", b"PUT"), (b"access-control-allow-headers", b"a, b"), FULL[4]],
            "a star is what was asked for",
        ),
        (
            policy(allow_methods=b"*,GET", allow_headers=b"*"),
            head("/", A, ASKS, method="OPTIONS"),
            [*FULL[:2], (b"access-control-allow-methods", b"*,GET"), (b"access-control-allow-headers", b""), FULL[4]],
            "a star among others is only a star; of no headers asked for, none",
        ),
        (
            policy(forward_not_matching_preflights=False),
            head("/", ASKS, method="OPTIONS"),
            None,
            "without an origin there is nothing to allow",
        ),
        (None, head("/", A, ASKS, method="OPTIONS"), None, "no policy"),
    ],
)
def test_a_preflight(found, request_head, expected, why):
    assert preflight(found, request_head) == expected, why


@pytest.mark.parametrize(
    ("found", "request_head", "expected", "why"),
    [
        (policy(), head("/", A), b"http://a", "allowed"),
        (policy(), head("/", B), None, "not allowed"),
        (policy(allow_origin=(exactly(b"x"), starts_with(b"http://"))), head("/", B), b"http://b", "one of the matchers is enough"),
        (policy(allow_origin=(exactly(b"*"),)), head("/", B), b"http://b", "an exact star is any origin, answered by its name"),
        (policy(), head("/"), None, "no origin"),
        (policy(), head("/", ("origin", "")), None, "an empty one"),
        (None, head("/", A), None, "no policy"),
    ],
)
def test_an_origin(found, request_head, expected, why):
    assert allowed_origin(found, request_head) == expected, why


def test_the_answer_to_an_allowed_origin_says_so_over_the_apps_own_words():
    headers = [(b"access-control-allow-origin", b"q"), (b"x", b"1")]
    on_response(policy(), b"http://a", headers)
    assert headers == [
        (b"access-control-allow-origin", b"http://a"),
        (b"x", b"1"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"y"),
    ]


def test_other_answers_stay_as_they_are():
    headers = [(b"x", b"1")]
    on_response(policy(), None, headers)
    on_response(None, b"http://a", headers)
    assert headers == [(b"x", b"1")]
