"""Whatever is written, reading and analysing it ends in diagnostics with a place, never in an exception."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devmesh.config.analysis import analyze
from devmesh.config.kinds import KINDS
from devmesh.config.loader import load_text, load_value
from tests.config.samples import sample

DOCUMENTS = [
    {"apiVersion": f"{kind.group}/{kind.versions[0]}", "kind": kind.kind, "metadata": {"name": "a"}, "spec": sample(kind.model)}
    for kind in KINDS
    if kind.model is not None
]
SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def judged(loaded):
    found = [*loaded.diagnostics, *analyze(loaded.resources)]
    assert all(one.where is not None and one.where.line > 0 and one.message for one in found)


@QUICK
@given(st.data())
def test_any_value_in_any_place_is_judged(data):
    document = data.draw(st.sampled_from(DOCUMENTS))
    path = data.draw(st.sampled_from(list(places(document))))
    new = changed(document, path, data.draw(VALUES))
    judged(load_value(new if isinstance(new, dict) else {}, "fuzz.yaml", lines={"": 1}))


@QUICK
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@#? \n\t0y<", max_size=40))
def test_any_text_is_judged(text):
    judged(load_text(text, "fuzz.yaml"))
