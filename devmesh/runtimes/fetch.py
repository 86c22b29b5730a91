"""A GET from one of the mesh's own servers on this machine."""

from __future__ import annotations

import aiohttp

from devmesh.errors import DevmeshError


async def fetch(url: str, token: str, within: float) -> tuple[int, str]:
    """(status, body); `within` in seconds. Raises DevmeshError when nobody answers."""
    timeout = aiohttp.ClientTimeout(total=within)
    try:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, timeout=timeout) as session,
            session.get(url) as response,
        ):
            return response.status, await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise no_answer(url, error) from error


def no_answer(url: str, error: Exception) -> DevmeshError:
    return DevmeshError(f"{url} does not answer: {error}", "devmesh status; it is restarted by itself, try again")
