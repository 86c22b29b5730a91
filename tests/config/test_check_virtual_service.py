import pytest

from tests.config.cases import VIRTUAL_SERVICES
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*VIRTUAL_SERVICES], ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)
