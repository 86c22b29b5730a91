"""The one kind of Kubernetes' own that is used here: Secrets, which Gateways and DestinationRules name as `credentialName`."""

import base64
import binascii
from typing import Any

from pydantic import Field, field_validator

from devmesh.config.istio_types import Message

SEALED = "devmesh-sealed:"
"""How a value begins that was encrypted for the registry (registry/sealed.py): nothing can be said about it."""
TLS_TYPE, OPAQUE = "kubernetes.io/tls", "Opaque"


class Secret(Message):
    """`v1` Secret without its metadata. No message that it gives holds a value."""

    type: str = OPAQUE
    data: dict[str, str] = Field(default_factory=dict, repr=False)
    string_data: dict[str, str] = Field(default_factory=dict, repr=False)
    immutable: bool | None = None

    @field_validator("data", "string_data", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Say ourselves that a value is no text: pydantic's own error would quote it."""
        if not isinstance(value, dict):
            raise ValueError("must be a mapping of names to text")  # noqa: TRY004 - what pydantic reports
        wrong = sorted(str(name) for name, one in value.items() if not isinstance(one, str))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} must be text")
        return value

    @field_validator("data")
    @classmethod
    def _base64(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = sorted(name for name, one in value.items() if not one.startswith(SEALED) and _decoded(one) is None)
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not base64; write plain text under stringData")
        return value

    def names(self) -> set[str]:
        return {*self.data, *self.string_data}

    def is_sealed(self) -> bool:
        return any(one.startswith(SEALED) for one in (*self.data.values(), *self.string_data.values()))

    def value(self, name: str) -> bytes:
        """Its bytes, empty when there is none; stringData wins over data, as in Kubernetes."""
        if name in self.string_data:
            return self.string_data[name].encode()
        return _decoded(self.data.get(name, "")) or b""

    def pair(self) -> tuple[bytes, bytes] | None:
        """Certificate and key under the names that istiod looks for, generic ones first."""
        for certificate, key in (("cert", "key"), ("tls.crt", "tls.key")):
            if self.value(certificate) and self.value(key):
                return self.value(certificate), self.value(key)
        return None

    def roots(self) -> bytes | None:
        return self.value("cacert") or self.value("ca.crt") or None


def _decoded(text: str) -> bytes | None:
    """Line breaks are no mistake: `base64 file` makes some."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
