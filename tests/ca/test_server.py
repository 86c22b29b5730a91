import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from devmesh.ca.authority import Authority
from devmesh.ca.client import certificate_request
from devmesh.ca.identity import SpiffeId
from devmesh.ca.server import _keep_certificate, server_context
from tests.ca.running import MESH_TOKEN, REVIEWS, running_ca
from tests.support.virtual_time import in_virtual_time, pass_time

RATINGS = SpiffeId.of("default", "bookinfo-ratings")
MINT = {"workload": "reviews-v1", "spiffe_id": str(REVIEWS)}


@pytest.fixture
async def ca(tmp_path):
    async with running_ca(tmp_path / "ca") as running:
        yield running


def csr(spiffe_id=REVIEWS):
    return {"csr": certificate_request(ec.generate_private_key(ec.SECP256R1()), spiffe_id)}


async def minted(ca, **changes):
    status, answer = await ca.call("POST", "/v1/tokens", MINT | changes, MESH_TOKEN)
    assert status == 200
    return answer["token"]


async def test_a_token_buys_an_svid_of_its_workload(ca):
    status, answer = await ca.call("POST", "/v1/sign", csr(), await minted(ca))
    leaf = x509.load_pem_x509_certificate(answer["certificate_chain"][0].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert status == 200
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(REVIEWS)]
    assert answer["expires"] == leaf.not_valid_after_utc.isoformat()
    assert answer["trust_bundle"] == [ca.root_file.read_text()]


@pytest.mark.parametrize(
    ("asked", "status"), [(40, 200), (None, 200), (0, 400), (-1, 400), ("1h", 400), (True, 400), (1e300, 400), (91 * 86400, 403)]
)
async def test_a_life_may_be_asked_for_and_nonsense_is_refused(ca, asked, status):
    got, answer = await ca.call("POST", "/v1/sign", csr() | {"validity_seconds": asked}, await minted(ca))
    assert got == status, answer


@pytest.mark.parametrize("jump", [timedelta(hours=30), timedelta(hours=-12)], ids=["a weekend's sleep", "a clock put right"])
@in_virtual_time
async def test_after_a_jump_of_the_clock_the_cas_own_certificate_is_valid_within_a_second(tmp_path, jump):
    wall, loaded = [datetime.now(UTC)], []
    authority = Authority.open(tmp_path, lambda: wall[0])
    begun = authority.server_certificate
    authority.server_certificate = lambda names: loaded.append(begun(names)) or loaded[-1]
    keeper = asyncio.create_task(_keep_certificate(server_context(authority), authority, (), lambda: wall[0]))
    await pass_time(5)
    assert len(loaded) == 1
    wall[0] += jump
    await pass_time(1)
    chain = [*loaded[-1][0].certificate_chain, *authority.trust_bundle.roots]
    for one in (x509.load_pem_x509_certificate(pem.encode()) for pem in chain):
        assert one.not_valid_before_utc <= wall[0] < one.not_valid_after_utc
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


async def test_a_token_does_not_buy_another_workloads_name(ca):
    status, answer = await ca.call("POST", "/v1/sign", csr(RATINGS), await minted(ca))
    assert status == 403
    assert "asks for" in answer["error"]


@pytest.mark.parametrize("token", [None, "wrong", MESH_TOKEN])
async def test_no_token_and_no_svid_is_refused(ca, token):
    assert (await ca.call("POST", "/v1/sign", csr(), token))[0] == 401


async def test_a_revoked_token_is_refused_and_so_is_the_svid_it_bought(ca, tmp_path):
    identity = await ca.workload(tmp_path)
    await identity.renew()
    by_svid = identity.client_context()
    by_svid.check_hostname = False
    assert (await ca.call("POST", "/v1/sign", csr(), context=by_svid))[0] == 200
    assert (await ca.call("DELETE", "/v1/tokens/reviews-v1", token=MESH_TOKEN))[0] == 200
    assert (await ca.call("DELETE", "/v1/tokens/reviews-v1", token=MESH_TOKEN))[0] == 404
    assert (await ca.call("POST", "/v1/sign", csr(), context=by_svid))[0] == 401


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"workload": "x"},
        {"workload": "", "spiffe_id": str(REVIEWS)},
        {"workload": "x", "spiffe_id": "spiffe://cluster.local"},
        {"workload": "x", "spiffe_id": "https://a"},
    ],
)
async def test_a_token_for_nobody_is_not_made(ca, body):
    assert (await ca.call("POST", "/v1/tokens", body, MESH_TOKEN))[0] == 400


@pytest.mark.parametrize("body", [None, {}, {"csr": 1}])
async def test_a_body_without_a_csr_is_a_bad_request(ca, body):
    assert (await ca.call("POST", "/v1/sign", body, await minted(ca)))[0] == 400


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/reviews-v1")])
async def test_tokens_are_made_and_revoked_with_the_mesh_token_only(ca, method, path):
    token = await minted(ca)
    for given in (None, token):
        assert (await ca.call(method, path, MINT, given))[0] == 401


async def test_a_foreign_host_or_origin_is_refused(ca):
    token = await minted(ca)
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert (await ca.call("POST", "/v1/sign", csr(), token, headers=headers))[0] == 403


async def test_bundle_and_readiness_are_open(ca):
    assert await ca.call("GET", "/v1/bundle") == (200, {"trust_bundle": [ca.root_file.read_text()]})
    assert (await ca.call("GET", "/healthz/ready"))[0] == 200


async def test_tokens_and_root_outlive_a_restart(tmp_path):
    async with running_ca(tmp_path / "ca") as ca:
        token = await minted(ca)
        root = ca.root_file.read_text()
    async with running_ca(tmp_path / "ca") as ca:
        assert (await ca.call("POST", "/v1/sign", csr(), token))[0] == 200
        assert ca.root_file.read_text() == root
