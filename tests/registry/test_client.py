"""What the client decides by itself; what it says to a server is in tests/conformance/test_registry.py."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from devmesh.errors import DevmeshError
from devmesh.registry.client import MAX_TXN_BYTES, Operation, Registry, RegistryDeniedError, RegistryUnavailableError, split_operations
from tests.support.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [([10] * 64, [64]), ([10] * 65, [64, 1]), ([], []), ([300_000, 300_000], [1, 1]), ([100, 512 * 1024, 100], [1, 1, 1])],
    ids=["64 are one", "65 are two", "none", "too big together", "one too big for any"],
)
def test_operations_are_split_by_number_and_size_and_keep_their_order(sizes, batches):
    operations = [Operation(f"k{n}", b"x" * size) for n, size in enumerate(sizes)]
    split = split_operations(operations)
    assert [len(batch) for batch in split] == batches
    assert [operation for batch in split for operation in batch] == operations


def test_a_batch_of_several_never_exceeds_consuls_limit():
    split = split_operations([Operation(f"k{n}", b"x" * 50_000) for n in range(40)])
    assert all(sum(operation.size for operation in batch) <= MAX_TXN_BYTES for batch in split)


def test_a_value_above_the_limit_is_the_users_error_before_anything_is_written():
    with pytest.raises(DevmeshError, match="524289 bytes"):
        split_operations([Operation("small", b"x"), Operation("big", b"x" * (512 * 1024 + 1))])


async def test_no_server_is_unavailable_and_says_which():
    async with Registry("http://127.0.0.1:9", "t") as registry:
        with pytest.raises(RegistryUnavailableError, match=r"127\.0\.0\.1:9 does not answer"):
            await registry.kv_get("devmesh/x")
        with pytest.raises(RegistryUnavailableError, match="no leader within"):
            await registry.wait_leader(within=0.05)


async def refusing(times: int, wanted: str):
    """A Consul that has elected its leader and refuses the token so many times, as it does until its first tokens are written."""
    left = iter(range(times))

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v1/status/leader":
            return web.json_response("127.0.0.1:8300")
        if next(left, None) is not None:
            return web.Response(status=403, text="ACL not found")
        return web.Response(status=404, headers={"X-Consul-Index": "1"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, Registry(str(server.make_url("")).rstrip("/"), "t") as registry:
        if wanted:
            with pytest.raises(RegistryDeniedError, match=wanted):
                await registry.wait_leader(within=1)
        else:
            await registry.wait_leader(within=60)


@in_virtual_time
async def test_a_new_leader_that_does_not_know_its_token_yet_is_waited_for():
    await refusing(2, "")


@in_virtual_time
async def test_a_token_that_stays_refused_is_the_error_at_the_end():
    await refusing(1000, "ACL not found")
