import asyncio
import ssl

import pytest

from devmesh.ca.address import CaAddress
from devmesh.ca.client import CaError, CaRefusedError, WorkloadIdentity
from devmesh.ca.identity import SpiffeId
from devmesh.runtimes.claims import PortClaims
from tests.ca.running import MESH_TOKEN, REVIEWS, Time, running_ca
from tests.support.waiting import until

RATINGS = SpiffeId.of("default", "bookinfo-ratings")


@pytest.fixture
async def ca(tmp_path):
    async with running_ca(tmp_path / "ca") as running:
        yield running


async def handshake(server, client):
    """One connection over loopback; gives what the server saw of its peer."""
    seen = asyncio.get_running_loop().create_future()

    async def accepted(reader, writer):
        seen.set_result(writer.get_extra_info("peercert"))
        writer.write(b"x")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=server)
    async with listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=client, server_hostname="")
        try:
            assert await reader.read(1) == b"x"
            return await seen
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_two_workloads_know_each_other_by_their_spiffe_ids(ca, tmp_path):
    reviews, ratings = await ca.workload(tmp_path), await ca.workload(tmp_path, RATINGS, "ratings-v1")
    await reviews.renew()
    await ratings.renew()
    seen = await handshake(ratings.server_context(), reviews.client_context(RATINGS))
    assert ("URI", str(REVIEWS)) in seen["subjectAltName"]


async def test_another_workload_of_the_mesh_is_not_the_one_that_was_meant(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    await reviews.renew()
    with pytest.raises(ssl.SSLCertVerificationError, match=f"not {RATINGS}"):
        await handshake(reviews.server_context(), reviews.client_context(RATINGS))


async def test_a_certificate_of_another_ca_is_refused(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    await reviews.renew()
    (tmp_path / "other").mkdir()
    async with running_ca(tmp_path / "other" / "ca") as other:
        stranger = await other.workload(tmp_path / "other")
        await stranger.renew()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(stranger.server_context(), reviews.client_context())


async def test_a_rotation_reaches_contexts_that_are_in_use(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    await reviews.renew()
    server, client = reviews.server_context(), reviews.client_context()
    before = await handshake(server, client)
    await reviews.renew()
    after = await handshake(server, client)
    assert before["serialNumber"] != after["serialNumber"]


async def test_the_key_is_shown_by_no_repr(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    assert "PRIVATE" not in repr(await reviews.renew())


async def test_renewal_uses_the_svid_and_after_its_end_the_token(ca, tmp_path):
    time = Time()
    reviews = await ca.workload(tmp_path, clock=time.clock)
    await reviews.renew()
    token = reviews._ca.token_file.read_text()
    reviews._ca.token_file.write_text("spoilt")
    await reviews.renew()
    time.passed = 3700
    assert not reviews.is_valid
    with pytest.raises(CaRefusedError):
        await reviews.renew()
    reviews._ca.token_file.write_text(token)
    await reviews.renew()


async def test_a_workload_gets_certificates_of_the_life_that_it_asks_for(ca, tmp_path):
    workload = await ca.workload(tmp_path, secret_ttl=90.0)
    workload.start()
    credentials = await workload.ready()
    assert 80 < (credentials.expires - credentials.issued).total_seconds() <= 90
    await workload.close()


async def test_half_life_and_a_jump_of_the_wall_clock_renew_and_tell(ca, tmp_path):
    time, told = Time(), []
    reviews = await ca.workload(tmp_path, clock=time.clock, check_seconds=0.005)
    reviews.on_rotate(told.append)
    reviews.start()
    try:
        first = await reviews.ready()
        time.passed += 37 * 60
        await until(lambda: reviews.renewals == 2)
        time.jumped += 60
        await until(lambda: reviews.renewals == 3)
        assert told[0] == first
        assert len(told) == 3
    finally:
        await reviews.close()


@pytest.fixture
def port():
    """Nobody else's while a CA is away."""
    with PortClaims() as ports:
        yield ports.prefer(0)


async def test_the_cas_absence_is_outlived(tmp_path, port):
    async with running_ca(tmp_path / "ca", port) as ca:
        reviews = await ca.workload(tmp_path, check_seconds=0.005)
        reviews.start()
        held = await reviews.ready()
    try:
        reviews.renew_soon()
        await until(lambda: reviews.failures > 0)
        assert reviews.credentials == held
        assert reviews.is_valid
        async with running_ca(tmp_path / "ca", port):
            await until(lambda: reviews.renewals == 2)
            assert reviews.last_error == ""
    finally:
        await reviews.close()


async def test_a_ca_with_another_root_is_not_believed(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    (tmp_path / "other").mkdir()
    async with running_ca(tmp_path / "other" / "ca") as other:
        misled = WorkloadIdentity(CaAddress(other.url, ca.root_file, reviews._ca.token_file), REVIEWS)
        with pytest.raises(CaError):
            await misled.renew()


async def test_a_ca_that_lost_its_keys_is_asked_with_the_token(tmp_path, port):
    async with running_ca(tmp_path / "ca", port) as ca:
        reviews = await ca.workload(tmp_path)
        await reviews.renew()
    for file in ("root.pem", "root.key", "intermediate.pem", "intermediate.key"):
        (ca.directory / file).unlink()
    async with running_ca(ca.directory, port):
        assert (await reviews.renew()).trust_bundle == ca.root_file.read_text()


async def test_a_workload_cannot_pass_for_the_ca(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    await reviews.renew()
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=reviews.server_context())
    async with listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        misled = WorkloadIdentity(CaAddress(url, ca.root_file, reviews._ca.token_file), REVIEWS)
        with pytest.raises(CaError):
            await misled.renew()


async def test_a_name_that_is_not_the_tokens_is_refused(ca, tmp_path):
    reviews = await ca.workload(tmp_path)
    liar = WorkloadIdentity(reviews._ca, RATINGS)
    with pytest.raises(CaRefusedError):
        await liar.renew()
    assert (await ca.call("DELETE", "/v1/tokens/reviews-v1", token=MESH_TOKEN))[0] == 200


async def test_without_a_certificate_there_are_no_contexts(ca, tmp_path):
    with pytest.raises(CaError, match="no certificate yet"):
        (await ca.workload(tmp_path)).server_context()
