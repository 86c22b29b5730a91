import pytest

from tests.config.cases import DESTINATION_RULES
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*DESTINATION_RULES], ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)
