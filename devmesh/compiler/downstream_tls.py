"""The TLS that a gateway's server terminates: DownstreamTlsContext of a ServerTLSSettings."""

from __future__ import annotations

from devmesh.compiler.shared import TYPE, Json, file_secret, secret
from devmesh.config.istio_networking import CIPHER_SUITES, ServerTLSSettings

ALPN = ["h2", "http/1.1"]
VERSIONS = {"TLSV1_0": "TLSv1_0", "TLSV1_1": "TLSv1_1", "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}
CREDENTIAL, CA_SUFFIX = "kubernetes://", "-cacert"


def server_tls(tls: ServerTLSSettings, *, http: bool) -> Json:
    """istiod's buildGatewayListenerTLSContext; `http`: requests are read behind it. A `credentialName` is a secret that the control plane itself serves."""
    common: Json = {}
    params = _params(tls)
    if params:
        common["tls_params"] = params
    common["tls_certificate_sds_secret_configs"] = _certificates(tls)
    common |= _validation(tls)
    common["alpn_protocols"] = ALPN if http or tls.mode != "ISTIO_MUTUAL" else ["istio-peer-exchange", *ALPN]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": tls.mode in ("MUTUAL", "ISTIO_MUTUAL"),
        },
    }


def credential(name: str) -> Json:
    return {"name": f"{CREDENTIAL}{name}", "sds_config": {"ads": {}, "resource_api_version": "V3"}}


def _params(tls: ServerTLSSettings) -> Json:
    """Only what the Gateway says: Envoy's own defaults are TLS 1.2 to 1.3 for servers."""
    found: Json = {}
    if tls.min_protocol_version in VERSIONS:
        found["tls_minimum_protocol_version"] = VERSIONS[tls.min_protocol_version]
    if tls.max_protocol_version in VERSIONS:
        found["tls_maximum_protocol_version"] = VERSIONS[tls.max_protocol_version]
    if tls.cipher_suites:
        found["cipher_suites"] = [suite for suite in dict.fromkeys(tls.cipher_suites) if suite in CIPHER_SUITES]
    return found


def credential_names(tls: ServerTLSSettings) -> list[str]:
    return [tls.credential_name] if tls.credential_name else list(tls.credential_names)


def _certificates(tls: ServerTLSSettings) -> list[Json]:
    if tls.mode == "ISTIO_MUTUAL":
        return [secret("default")]
    names = credential_names(tls)
    if names:
        return [credential(name) for name in names]
    pairs = [(one.server_certificate, one.private_key) for one in tls.tls_certificates] or [(tls.server_certificate, tls.private_key)]
    return [file_secret(f"file-cert:{certificate}~{key}") for certificate, key in pairs]


def _validation(tls: ServerTLSSettings) -> Json:
    checks: Json = {"match_subject_alt_names": [{"exact": san} for san in tls.subject_alt_names]} if tls.subject_alt_names else {}
    names = credential_names(tls)
    if names and tls.mode != "ISTIO_MUTUAL":
        if tls.verify_certificate_spki:
            checks["verify_certificate_spki"] = list(tls.verify_certificate_spki)
        if tls.verify_certificate_hash:
            checks["verify_certificate_hash"] = list(tls.verify_certificate_hash)
    if tls.mode == "SIMPLE":
        sans = {name: value for name, value in checks.items() if name == "match_subject_alt_names"}
        return {"validation_context": sans} if names and sans else {}
    if tls.insecure_skip_verify:
        checks["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
    if tls.mode == "ISTIO_MUTUAL":
        roots = secret("ROOTCA")
    elif names:
        roots = credential(tls.ca_cert_credential_name or f"{names[0]}{CA_SUFFIX}")
    else:
        roots = file_secret(f"file-root:{tls.ca_certificates}")
    return {"combined_validation_context": {"default_validation_context": checks, "validation_context_sds_secret_config": roots}}
