"""PeerAuthentication as Istio's security/v1beta1 protos have it; the other two kinds of the group are known and refused (kinds.py)."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from devmesh.config.istio_types import Message, WorkloadSelector

MtlsMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTLS(Message):
    mode: MtlsMode = "UNSET"


def _port(value: object) -> object:
    """Read a JSON object's key, which is always a string, as the port it means."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class PeerAuthentication(Message):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[Annotated[int, BeforeValidator(_port)], MutualTLS] = Field(default_factory=dict)
