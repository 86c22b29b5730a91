"""Secret (extensions/transport_sockets/tls/v3) -> PEM texts. Nothing here may put a key into a message."""

from __future__ import annotations

import base64

from devmesh.sidecar.config import ConfigError
from devmesh.sidecar.config_common import Json

PARTS = ("certificate_chain", "private_key", "trust_bundle")


def parse_secret(secret: Json) -> dict[str, str]:
    """`certificate_chain` and `private_key`, or `trust_bundle`; the flat form is that of snapshot files."""
    if not secret.keys() & {"tls_certificate", "validation_context"}:
        return {part: str(secret[part]) for part in PARTS if part in secret}
    pair, roots = secret.get("tls_certificate", {}), secret.get("validation_context", {}).get("trusted_ca")
    found = {part: _text(secret["name"], part, pair[part]) for part in PARTS if part in pair}
    return found | ({"trust_bundle": _text(secret["name"], "trusted_ca", roots)} if roots is not None else {})


def _text(name: str, part: str, source: Json) -> str:
    """A DataSource that is written in; UnicodeDecodeError and binascii.Error would quote what they could not read."""
    if "inline_string" in source:
        return str(source["inline_string"])
    try:
        return base64.b64decode(source["inline_bytes"], validate=True).decode("ascii")
    except (KeyError, TypeError, ValueError):
        raise ConfigError(name, f"{part} is not inline PEM") from None
