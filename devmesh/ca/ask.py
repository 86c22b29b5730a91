"""One request to a CA that listens on this machine's loopback, with the mesh's token: what `up` of a remote mesh asks.

By the standard library: it also runs in the CA's own container, for one question.
"""

import ssl
from http.client import HTTPSConnection

TIMEOUT = 5.0  # seconds


def ask(port: int, root: str, token: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """(status, body) of the answer; `root` is the trust bundle, PEM. Raises OSError or HTTPException when there is none."""
    connection = HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT, context=ssl.create_default_context(cadata=root))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
