import subprocess

import pytest

from tests.sidecar.life import CLUSTER, living, snapshot_file
from tests.support import require


@pytest.fixture
async def ports(tmp_path):
    secret = {"name": "default", "certificate_chain": "CHAIN", "private_key": "PRIVATE KEY", "trust_bundle": "ROOTS"}
    async with living(xds=None, ca=None, snapshot=snapshot_file(tmp_path, secrets=[secret])) as ports:
        yield ports


async def test_every_part_has_envoys_type_and_every_resource_its_own(ports):
    configs = (await ports.json("/config_dump?include_eds"))["configs"]
    kinds = [config["@type"].removeprefix("type.googleapis.com/envoy.admin.v3.") for config in configs]
    assert kinds == [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "EndpointsConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ]
    (cluster,) = configs[1]["dynamic_active_clusters"]
    assert cluster["cluster"] == {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", **CLUSTER}
    assert cluster["version_info"] == "v1"


async def test_endpoints_are_shown_when_asked_for(ports):
    kinds = [config["@type"] for config in (await ports.json("/config_dump"))["configs"]]
    assert "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump" not in kinds


async def test_no_key_is_shown(ports):
    status, text = await ports.call("admin", "/config_dump")
    assert status == 200
    assert "W3JlZGFjdGVkXQ==" in text
    assert "UFJJVkFURSBLRVk" not in text
    assert "PRIVATE KEY" not in text


@pytest.mark.parametrize(
    ("kind", "path", "shown"),
    [
        ("routes", "/config_dump", "reviews.default.svc.cluster.local:9080"),
        ("clusters", "/config_dump", "reviews.default.svc.cluster.local"),
        ("endpoints", "/clusters?format=json", "127.7.0.4:9080"),
    ],
)
async def test_istioctl_reads_it(ports, tmp_path, kind, path, shown):
    istioctl = require.tool("istioctl", "istioctl")
    (tmp_path / "dump.json").write_text((await ports.call("admin", path))[1])
    command = [istioctl, "proxy-config", kind, "--file", tmp_path / "dump.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown in done.stdout, done.stderr
