"""What istiod's validation says of a Gateway and of a PeerAuthentication by themselves."""

from devmesh.config.checks import Checker
from devmesh.config.istio_networking import CIPHER_SUITES, Gateway, Server, ServerTLSSettings
from devmesh.config.istio_security import PeerAuthentication
from devmesh.config.schema import suggest
from devmesh.config.syntax import is_address, is_label, socket_problem

HTTP_PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY")
TLS_PROTOCOLS = ("HTTPS", "TLS")
TCP_PROTOCOLS = ("TCP", "MONGO", "REDIS", "MYSQL", "UDP")
_SOCKET = "unix://"
MAX_CERTIFICATES = 2
TERMINATED = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")
_UNREAD = ("PASSTHROUGH", "AUTO_PASSTHROUGH")
_OLD_TLS = ("TLSV1_0", "TLSV1_1")


def check_gateway(check: Checker, spec: Gateway) -> None:
    if not is_label(check.resource.meta.name):
        check.error("metadata.name", f'invalid gateway name: "{check.resource.meta.name}"')
    if not spec.servers:
        check.error("spec.servers", "gateway must have at least one server")
    names: set[str] = set()
    for index, server in enumerate(spec.servers):
        path = f"spec.servers[{index}]"
        _check_server(check, path, server)
        if server.port is not None and server.port.name in names:
            check.error(f"{path}.port.name", f"port names in servers must be unique: duplicate name {server.port.name}")
        names |= {server.port.name} if server.port else set()


def _check_server(check: Checker, path: str, server: Server) -> None:
    if not server.hosts:
        check.error(path, "server config must contain at least one host")
    for index, host in enumerate(server.hosts):
        _check_host(check, f"{path}.hosts[{index}]", host)
    _check_bind(check, path, server)
    if server.default_endpoint:
        check.no_effect(f"{path}.defaultEndpoint", "Istio itself reads it in Sidecars only")
    if server.port is None:
        check.error(path, "port is required")
        return
    protocol = server.port.protocol.upper()
    known = (*HTTP_PROTOCOLS, *TLS_PROTOCOLS, *TCP_PROTOCOLS)
    check.word(
        f"{path}.port.protocol", protocol, known, f'invalid protocol "{server.port.protocol}", supported protocols are {", ".join(known)}'
    )
    if server.port.number or not server.bind.startswith(_SOCKET):
        check.port(f"{path}.port.number", server.port.number)
    elif "number" not in server.port.model_fields_set:
        check.error(f"{path}.port", "port number must be given")
    if server.port.target_port:
        check.error(f"{path}.port.targetPort", "targetPort has no impact on Gateways")
    if not server.port.name:
        check.error(f"{path}.port", "port name must be set")
    _check_server_tls(check, path, server.tls, protocol)


def _check_bind(check: Checker, path: str, server: Server) -> None:
    if not server.bind.startswith(_SOCKET):
        if server.bind and not is_address(server.bind):
            check.error(f"{path}.bind", f"{server.bind} is not a valid IP")
        return
    if problem := socket_problem(server.bind.removeprefix(_SOCKET)):
        check.error(f"{path}.bind", problem)
    if server.port is not None and server.port.number:
        check.error(f"{path}.port.number", "port number must be 0 for unix domain socket")


def _check_host(check: Checker, path: str, host: str) -> None:
    namespace, slash, name = host.rpartition("/")
    if slash and namespace not in ("*", ".") and not is_label(namespace):
        check.error(path, f'invalid namespace value "{namespace}" in gateway')
    if name != "*" and "." not in name:
        check.error(path, "short names (non FQDN) are not allowed")
    elif check.domain(path, name, address=True) and name.startswith("*") and name != "*" and not name.startswith("*."):
        check.error(path, f'partial wildcard "{name}" not allowed')


def _check_server_tls(check: Checker, path: str, tls: ServerTLSSettings | None, protocol: str) -> None:
    if tls is not None and tls.https_redirect and protocol not in HTTP_PROTOCOLS:
        check.warn(f"{path}.tls.httpsRedirect", "tls.httpsRedirect should only be used with http servers")
    if protocol in TLS_PROTOCOLS:
        if tls is None:
            check.error(path, "server must have TLS settings for HTTPS/TLS protocols")
        else:
            _check_lists(check, f"{path}.tls", tls)
            _check_unread(check, f"{path}.tls", tls)
            _check_certificates(check, f"{path}.tls", tls)
            _check_tls_details(check, f"{path}.tls", tls)
        return
    if tls is None:
        return
    _check_lists(check, f"{path}.tls", tls)
    _check_unread(check, f"{path}.tls", tls)
    certificates = tls.ca_certificates or tls.private_key or tls.server_certificate
    if protocol not in HTTP_PROTOCOLS:
        check.error(f"{path}.tls", "server cannot have TLS settings for non HTTPS/TLS ports")
    elif tls.mode not in _UNREAD or certificates:
        check.error(f"{path}.tls", "server cannot have TLS settings for plain text HTTP ports")


def _check_tls_details(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    """What Istio or this mesh's gateway takes otherwise than it reads."""
    if tls.mode == "AUTO_PASSTHROUGH":
        check.no_effect(f"{path}.mode", "there are no other clusters to pass to: this server is not opened")
    if tls.min_protocol_version in _OLD_TLS:
        check.no_effect(f"{path}.minProtocolVersion", "gateways here speak TLS 1.2 at the least")
    if tls.max_protocol_version in _OLD_TLS:
        check.error(f"{path}.maxProtocolVersion", "gateways here speak TLS 1.2 at the least, so nobody could connect")
    for index, suite in enumerate(tls.cipher_suites):
        if suite not in CIPHER_SUITES:
            check.warn(f"{path}.cipherSuites[{index}]", f"ignoring invalid cipher suite {suite}", suggest(suite, CIPHER_SUITES))
        elif suite in tls.cipher_suites[:index]:
            check.warn(f"{path}.cipherSuites[{index}]", f"ignoring duplicate cipher suite {suite}")
    if tls.ca_crl:
        check.error(f"{path}.caCrl", "revocation lists are not supported yet, and a gateway without one would let revoked certificates in")
    if tls.insecure_skip_verify and tls.mode in TERMINATED:
        check.no_effect(f"{path}.insecureSkipVerify", "a client's certificate is verified all the same")
    if tls.mode == "SIMPLE" and tls.subject_alt_names:
        check.no_effect(f"{path}.subjectAltNames", "with SIMPLE no client is asked for a certificate")
    _check_pins(check, path, tls)


def _check_pins(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    for field, pins in (("verifyCertificateHash", tls.verify_certificate_hash), ("verifyCertificateSpki", tls.verify_certificate_spki)):
        if pins and not (tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and (tls.credential_name or tls.credential_names)):
            check.no_effect(f"{path}.{field}", "Istio reads it only of MUTUAL servers with a credentialName")


def _check_unread(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    one = tls.server_certificate or tls.private_key or tls.ca_certificates or tls.ca_crl or tls.credential_name
    if tls.mode in _UNREAD and (one or tls.tls_certificates or tls.credential_names):
        check.warn(path, f"{tls.mode} mode does not use certificates, they will be ignored")


def _check_lists(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    """Hold the CRD, to which an empty list is one that was given."""
    given = tls.model_fields_set
    for name, alias, values in (
        ("credential_names", "credentialNames", tls.credential_names),
        ("tls_certificates", "tlsCertificates", tls.tls_certificates),
    ):
        if name in given and not 1 <= len(values) <= MAX_CERTIFICATES:
            check.error(f"{path}.{alias}", f"must have 1 to {MAX_CERTIFICATES} items, has {len(values)}")
    if "credential_names" in given and not given.isdisjoint(("credential_name", "tls_certificates")):
        check.error(path, "only one of credentialName, credentialNames or tlsCertificates can be set")


def _check_certificates(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    """Hold istiod's validateTLSOptions: what each mode needs, and what it excludes."""
    files = bool(tls.server_certificate and tls.private_key)
    sources = [files, bool(tls.credential_name), bool(tls.credential_names), bool(tls.tls_certificates)]
    if tls.mode == "ISTIO_MUTUAL":
        if any((tls.server_certificate, tls.private_key, tls.ca_certificates, *sources[1:])):
            check.error(path, "ISTIO_MUTUAL TLS cannot have associated certificates")
        return
    if sum(sources) > 1:
        check.error(
            path, "only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified"
        )
    if tls.mode not in _UNREAD and not (tls.credential_name or tls.credential_names):
        _check_certificate_files(check, path, tls)


def _check_certificate_files(check: Checker, path: str, tls: ServerTLSSettings) -> None:
    word = "SIMPLE TLS" if tls.mode == "SIMPLE" else "MUTUAL TLS"
    if tls.mode != "SIMPLE" and not tls.ca_certificates:
        check.error(path, f"{word} requires a client CA bundle")
    pairs = [(one.server_certificate, one.private_key) for one in tls.tls_certificates] or [(tls.server_certificate, tls.private_key)]
    if not all(certificate for certificate, _ in pairs):
        check.error(path, f"{word} requires a server certificate")
    if not all(key for _, key in pairs):
        check.error(path, f"{word} requires a private key")
    if tls.ca_crl and tls.mode == "SIMPLE":
        check.error(f"{path}.caCrl", "CRL is not supported with SIMPLE TLS")


def check_peer_authentication(check: Checker, spec: PeerAuthentication) -> None:
    selects = spec.selector is not None and spec.selector.match_labels
    given = "port_level_mtls" in spec.model_fields_set
    if given and not spec.port_level_mtls:
        check.error("spec.portLevelMtls", "port level mTLS, if defined, must have at least one element")
    elif given and not selects:
        check.error("spec.portLevelMtls", "mesh/namespace peer authentication cannot have port level mTLS", "add selector.matchLabels")
    for port in spec.port_level_mtls:
        if not 1 <= port <= 65535:
            check.error(f"spec.portLevelMtls.{port}", "port must be in range 1..65535")
    if spec.selector is not None:
        check.selector("spec.selector.matchLabels", spec.selector.match_labels)
