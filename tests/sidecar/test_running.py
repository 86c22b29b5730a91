from devmesh.sidecar.__main__ import build
from devmesh.sidecar.bootstrap import Bootstrap
from devmesh.sidecar.config import ProxyConfig
from devmesh.sidecar.running import Phase, ProxyIdentity, rfc3339
from tests.ca.running import running_ca
from tests.sidecar.bootstraps import bootstrap


async def test_it_is_live_with_configuration_certificate_and_listeners_only():
    running = build(Bootstrap.parse(bootstrap(xds=None, ca=None, snapshot="s.json")))
    assert running.phase is Phase.INITIALIZING
    running.proxy.apply(ProxyConfig("v1", {}, {}, {}, {}))
    assert running.phase is Phase.INITIALIZING
    running.listening = True
    assert running.phase is Phase.LIVE
    running.stop.set()
    assert running.phase is Phase.DRAINING


async def test_the_data_path_sees_one_value_per_rotation(tmp_path):
    async with running_ca(tmp_path / "ca") as ca:
        identity = await ca.workload(tmp_path)
        view = ProxyIdentity(identity)
        assert view.credentials is None
        await identity.renew()
        first = view.credentials
        assert first is view.credentials
        assert first.certificate_chain == identity.credentials.certificate_chain
        await identity.renew()
        assert view.credentials != first


def test_times_are_rfc_3339():
    assert rfc3339(1_700_000_000_123_000_000) == "2023-11-14T22:13:20.123Z"
