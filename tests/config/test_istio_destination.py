from devmesh.config.istio_destination import ConsistentHashLB, DestinationRule, LocalityFailover


def test_the_words_python_reserves_keep_their_json_names():
    assert LocalityFailover.model_validate({"from": "a", "to": "b"}).from_ == "a"


def test_unset_members_of_a_oneof_are_none_so_that_false_can_be_told_apart():
    hashing = ConsistentHashLB.model_validate({"useSourceIp": False})
    assert (hashing.use_source_ip, hashing.http_header_name) == (False, None)


def test_settings_nest_as_istios():
    rule = DestinationRule.model_validate(
        {"host": "a", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, "outlierDetection": {"consecutive5xxErrors": 0}}]}}
    )
    assert rule.traffic_policy.port_level_settings[0].outlier_detection.consecutive_5xx_errors == 0
