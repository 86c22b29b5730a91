"""A GET from one of the mesh's own servers on this machine.

By the standard library: a client that also does everything else takes longer to import than such a question to answer.
"""

from __future__ import annotations

import asyncio
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from devmesh.errors import DevmeshError


async def fetch(url: str, token: str, within: float) -> tuple[int, str]:
    """(status, body); `within` in seconds, for the connection and for each silence. Raises DevmeshError when nobody answers."""
    try:
        return await asyncio.to_thread(_get, url, token, within)
    except (OSError, HTTPException) as error:
        raise no_answer(url, error) from error


def _get(url: str, token: str, within: float) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=within)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target or "/", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def no_answer(url: str, error: Exception) -> DevmeshError:
    return DevmeshError(f"{url} does not answer: {error}", "devmesh status; it is restarted by itself, try again")
