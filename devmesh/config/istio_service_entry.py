"""ServiceEntry as Istio's networking/v1alpha3 proto has it."""

from typing import Literal

from pydantic import Field

from devmesh.config.istio_types import Message, UInt32


class EntryPort(Message):
    number: UInt32 = 0
    protocol: str = ""
    name: str = ""
    target_port: UInt32 = 0


class EntryEndpoint(Message):
    """A WorkloadEntry inside a ServiceEntry."""

    address: str = ""
    ports: dict[str, UInt32] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    network: str = ""
    locality: str = ""
    weight: UInt32 = 0
    service_account: str = ""


class EntrySelector(Message):
    labels: dict[str, str] = Field(default_factory=dict)


class ServiceEntry(Message):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[EntryPort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: tuple[EntryEndpoint, ...] = ()
    workload_selector: EntrySelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
