import pytest

from tests.config.bookinfo import destination_rule, diagnose
from tests.config.more_cases import LOCALITIES
from tests.config.verdicts import check


@pytest.mark.parametrize("case", LOCALITIES, ids=lambda case: case.spec)
def test_the_rules_of_istiods_validation_hold(case):
    check(case)


@pytest.mark.parametrize("kind", ["localityLbSetting", "zoneAwareLbSetting"])
def test_failover_wants_outlier_detection(kind):
    said = diagnose(destination_rule(f"{{loadBalancer: {{{kind}: {{failover: [{{from: a, to: b}}]}}}}}}"))
    assert [one.severity for one in said if "outlier detection policy must be provided" in one.message] == ["warning"]
