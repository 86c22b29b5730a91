"""What the checks of one resource say about a case."""

from devmesh.config.model import Diagnostic
from tests.config.bookinfo import diagnose
from tests.config.cases import Case


def errors(case: Case) -> list[Diagnostic]:
    """Errors that concern the resource by itself: what it refers to is another question."""
    return [one for one in diagnose(case.document()) if one.severity == "error" and one.code != "IST0101"]


def check(case: Case) -> None:
    found = errors(case)
    if not case.message:
        assert not found, [str(one) for one in found]
        return
    assert any(case.message in one.message and f"{case.path}: " in one.message for one in found), [str(one) for one in found]
