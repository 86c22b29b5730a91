from tests.config.bookinfo import load


def test_ports_are_numbers_although_json_keys_are_text():
    loaded = load("""\
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: a}
        spec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}}}
        """)
    assert loaded.resources[0].spec.port_level_mtls[9080].mode == "DISABLE"


def test_a_port_that_is_no_number_is_named():
    loaded = load("""\
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: a}
        spec: {portLevelMtls: {http: {mode: DISABLE}}}
        """)
    assert "spec.portLevelMtls.http must be a whole number" in loaded.errors[0].message
