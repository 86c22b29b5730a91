"""The identities of the square: a CA of its own, as a sidecar's snapshot, as an Envoy's inline secrets and as `ssl` contexts."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import Any

from devmesh.ca.authority import Authority
from devmesh.ca.identity import SpiffeId
from devmesh.ca.memfd import load_pair
from devmesh.sidecar.tls import Credentials
from tests.sidecar.identities import signed
from tests.support.web_certificates import Pair, WebCa

Json = dict[str, Any]
CREDENTIAL = "kubernetes://"


class Certificates:
    """`foreign` is a CA that nobody here trusts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority.open(directory / "ca")
        self._foreign = Authority.open(directory / "foreign")
        issued, key = self._authority.server_certificate()
        self._servers = WebCa()
        self._web = Credentials("".join(issued.certificate_chain), key, self._authority.trust_bundle.pem)

    @functools.cache  # noqa: B019 - lives as long as the test session
    def svid(self, spiffe_id: str, *, foreign: bool = False) -> Credentials:
        return signed(self._foreign if foreign else self._authority, SpiffeId.parse(spiffe_id))

    def app(self, spiffe_id: str) -> dict[bool, ssl.SSLContext]:
        """An app's side of TLS: as its sidecar would for names of the mesh (True), as a web server for `localhost` for others."""
        return {True: self._server(self.svid(spiffe_id)), False: self._server(self._web)}

    def _server(self, credentials: Credentials) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, credentials.certificate_chain, credentials.private_key)
        context.load_verify_locations(cadata=credentials.trust_bundle)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def caller(self, spiffe_id: str | None, alpn: tuple[str, ...], *, foreign: bool = False) -> ssl.SSLContext:
        """A client that takes any server, and shows this identity, if any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if spiffe_id is not None:
            credentials = self.svid(spiffe_id, foreign=foreign)
            load_pair(context, credentials.certificate_chain, credentials.private_key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def files(self, text: str) -> str:
        """The files that cases name, and the system's roots, become files of this CA's."""
        names = {
            "/etc/ca.pem": self._web.trust_bundle,
            "/etc/client.pem": self._web.certificate_chain,
            "/etc/client.key": self._web.private_key,
        }
        for name, pair in {"/etc/server": self.web_pair("a"), "/etc/other": self.web_pair("a", "ec")}.items():
            names |= {f"{name}.pem": pair.certificate, f"{name}.key": pair.key}
        text = text.replace("file-root:system", "file-root:/etc/ca.pem")
        for name, content in names.items():
            file = self._directory / Path(name).name
            if not file.exists():
                file.write_text(content)
            text = text.replace(name, str(file))
        return text

    def web_pair(self, letter: str, kind: str = "rsa") -> Pair:
        """The certificate of a gateway's server for `<letter>.example`."""
        return self._servers.pair(f"{letter}.example", kind=kind)

    def _named(self, name: str) -> Pair:
        """What a Secret or a file holds: `a-credential`, `b-credential`, `a-ecdsa`, /etc/server.pem, /etc/other.pem."""
        letter, _, kind = name.removeprefix(CREDENTIAL).partition("-")
        if name.startswith(CREDENTIAL):
            return self.web_pair(letter, "ec" if kind == "ecdsa" else "rsa")
        return self.web_pair("a", "ec" if "other.pem" in name else "rsa")

    def client(self, name: str, spiffe_id: str) -> Credentials | None:
        """Who may call a gateway: `web` its roots vouch for, `mesh` too, with a SPIFFE ID, `foreign` they do not."""
        known = {"nobody": None, "web": self._web, "mesh": self.svid(spiffe_id), "foreign": self.svid(spiffe_id, foreign=True)}
        return known[name]

    def credentials(self) -> list[dict[str, str]]:
        """The Secrets that gateways name."""
        out = []
        for name in ("a-credential", "b-credential", "a-ecdsa"):
            pair = self._named(CREDENTIAL + name)
            out.append({"name": CREDENTIAL + name, "certificate_chain": pair.certificate, "private_key": pair.key})
        for name in ("a-credential-cacert", "other-ca"):
            out.append({"name": CREDENTIAL + name, "trust_bundle": self._web.trust_bundle})
        return out

    def snapshot(self, spiffe_id: str) -> list[dict[str, str]]:
        """`secrets` of a sidecar's snapshot, under the names that SDS has for them."""
        own = self.svid(spiffe_id)
        pair = {"certificate_chain": own.certificate_chain, "private_key": own.private_key}
        return [{"name": "default", **pair, "trust_bundle": own.trust_bundle}, {"name": "ROOTCA", "trust_bundle": own.trust_bundle}]

    def _inlined(self, name: str, own: Credentials) -> Json:
        if name == "default":
            pair = Pair(own.certificate_chain, own.private_key)
        elif "client.pem" in name:
            pair = Pair(self._web.certificate_chain, self._web.private_key)
        else:
            pair = self._named(name)
        return {"certificate_chain": {"inline_string": pair.certificate}, "private_key": {"inline_string": pair.key}}

    def inline(self, value: Any, spiffe_id: str) -> Any:
        """The same configuration with the secrets in it, in place of the names that istio-agent would be asked for."""
        if isinstance(value, list):
            return [self.inline(one, spiffe_id) for one in value]
        if not isinstance(value, dict):
            return value
        out = {key: self.inline(one, spiffe_id) for key, one in value.items()}
        own = self.svid(spiffe_id)
        secrets = out.pop("tls_certificate_sds_secret_configs", ())
        if secrets:
            out["tls_certificates"] = [self._inlined(one["name"], own) for one in secrets]
        combined = out.pop("combined_validation_context", None)
        if combined is not None:
            out["validation_context"] = {**combined["default_validation_context"], "trusted_ca": {"inline_string": own.trust_bundle}}
        return out
