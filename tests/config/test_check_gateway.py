import pytest

from tests.config.cases import GATEWAYS, PEER_AUTHENTICATIONS
from tests.config.verdicts import check


@pytest.mark.parametrize("case", [*GATEWAYS, *PEER_AUTHENTICATIONS], ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)
