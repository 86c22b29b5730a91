from tests.config.bookinfo import ROUTE, diagnose, virtual_service


def found(*rules):
    return [(one.severity, one.code, one.message.partition(": ")[2]) for one in diagnose(virtual_service(", ".join(rules)))]


def matching(text, name=""):
    return f"{{name: '{name}', match: [{text}], {ROUTE}}}"


EVERYTHING = f"{{{ROUTE}}}"


def test_only_the_last_rule_may_match_everything():
    assert found(EVERYTHING, EVERYTHING) == [
        ("warning", "IST0130", "VirtualService rule #1 not used (only the last rule can have no matches).")
    ]


def test_rules_after_one_that_matches_everything_are_never_used():
    assert found(EVERYTHING, matching("{uri: {exact: /}}", "late")) == [
        ("warning", "IST0130", 'VirtualService rule "late" not used (route without matches defined before).')
    ]


def test_a_match_that_an_earlier_rule_has_is_ineffective_and_its_rule_unreachable():
    assert found(matching("{uri: {exact: /}}"), matching("{uri: {exact: /}, name: again}"), EVERYTHING) == [
        ("info", "IST0131", "VirtualService rule #1 match #0 is not used (duplicate/overlapping match in rule #0)."),
        ("warning", "IST0130", "VirtualService rule #1 not used (all matches used by prior rules)."),
    ]


def test_a_longer_prefix_after_a_shorter_one_is_covered():
    (covered,) = found(matching("{uri: {prefix: /a}}"), matching("{uri: {prefix: /a/b}}"))
    assert covered[:2] == ("info", "IST0131")
    assert "match #0 of prefix /a/b is not used" in covered[2]


def test_a_prefix_with_a_narrower_condition_covers_nothing():
    assert not found(matching("{uri: {prefix: /a}, headers: {user: {exact: jason}}}"), matching("{uri: {prefix: /a/b}}"))
    assert not found(matching("{uri: {prefix: /a/b}}"), matching("{uri: {prefix: /a}}"))
