"""What `manifest generate` asks of an engine, and when."""

from ipaddress import IPv4Network

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker import manifest
from devmesh.runtimes.docker.engine import Engine, ExistingNetwork
from devmesh.runtimes.docker.manifest import external_networks

OUTSIDE = ExistingNetwork("corp-net", "", (IPv4Network("10.9.0.0/24"),), None, frozenset(), internal=False)
OTHERS = ExistingNetwork("shop_default", "shop", (IPv4Network("10.210.0.0/24"),), None, frozenset(), internal=False)


class Networks:
    def networks(self):
        return [OUTSIDE, OTHERS]


def test_external_networks_are_those_of_the_engine_and_no_other_meshs_change_the_result(monkeypatch):
    monkeypatch.setattr(Engine, "connect", staticmethod(Networks))
    assert external_networks({"networks": {"corp": {"external": True, "name": "corp-net"}, "default": None}}) == [OUTSIDE]
    assert external_networks({"networks": {"corp-net": {"external": True}}}) == [OUTSIDE]


def test_no_engine_is_needed_unless_a_network_is_external(monkeypatch):
    def nobody():
        raise DevmeshError("no Docker engine answers", "start Docker")

    monkeypatch.setattr(manifest.Engine, "connect", staticmethod(nobody))
    assert external_networks({"networks": {"default": {}}}) == []
    with pytest.raises(DevmeshError, match="no Docker engine answers"):
        external_networks({"networks": {"corp": {"external": True}}})
