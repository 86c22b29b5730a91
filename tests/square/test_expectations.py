"""Requests with the answers that the YAML promises, in all four corners: {our compiler, Istio's} x {our sidecar, Envoy}."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.square.apps import apps
from tests.square.client import Answer, Request
from tests.square.compilers import CASES, golden, ours
from tests.square.dataplane import Place, workload
from tests.square.test_requests import CALLER, through_envoy, through_sidecar


def requests_file(case: Any) -> Any:
    return case.with_name(f"{case.stem}.requests.yaml")


EXPECTING = [case for case in CASES if requests_file(case).exists()]


def asked(case: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = YAML(typ="safe").load(requests_file(case))
    return found


def rows(requests: list[dict[str, Any]]) -> list[Request]:
    return [Request(one["method"], one["url"], one.get("headers", {}), one.get("body", "")) for one in requests]


def meets(expect: dict[str, Any], answer: Answer) -> bool:
    """`reached` is a workload, or a service whose any workload will do; without it nothing may be reached."""
    reached = expect.get("reached")
    if answer.status != expect["status"] or bool(reached) != bool(answer.reached):
        return False
    return reached is None or answer.reached == reached or answer.reached.rpartition("-")[0] == reached


async def corners(case: Any, certificates: Any, directory: Any) -> dict[str, list[Answer]]:
    table = rows(asked(case))
    mine, theirs = ours(case)[CALLER], golden(case)[CALLER]
    async with apps(certificates) as places:
        place = Place(workload(CALLER), places, certificates)
        return {
            "our compiler, our sidecar": await through_sidecar(mine, place, table),
            "Istio's compiler, our sidecar": await through_sidecar(theirs, place, table),
            "our compiler, Envoy": await through_envoy(mine, place, directory / "ours", table),
            "Istio's compiler, Envoy": await through_envoy(theirs, place, directory / "istio", table),
        }


def test_at_least_twenty_five_inputs_say_what_to_expect():
    assert len(EXPECTING) >= 25


@pytest.mark.parametrize("case", EXPECTING, ids=lambda case: case.stem)
async def test_all_four_corners_answer_alike_and_as_expected(case, certificates, tmp_path):
    found = await corners(case, certificates, tmp_path)
    reference = found["Istio's compiler, Envoy"]
    for corner, answers in found.items():
        for one, answer, other in zip(asked(case), answers, reference, strict=True):
            assert meets(one["expect"], answer), (corner, one, answer.status, answer.reached)
            assert answer.comparable() == other.comparable(), (corner, one)


async def test_a_mutated_expectation_fails(certificates, tmp_path):
    case = next(case for case in EXPECTING if case.stem.endswith("-subset"))
    expect = asked(case)[0]["expect"]
    for answers in (await corners(case, certificates, tmp_path)).values():
        assert meets(expect, answers[0])
        assert not meets({**expect, "status": 503}, answers[0])
        assert not meets({**expect, "reached": "reviews-v1"}, answers[0])
        assert not meets({"status": expect["status"]}, answers[0])
