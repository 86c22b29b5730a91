"""A first mesh on the local runtime: its CA answers on this machine's loopback."""

from __future__ import annotations

import json
import ssl
from http.client import HTTPException, HTTPSConnection
from typing import Any, ClassVar

from devmesh.errors import DevmeshError
from devmesh.runtimes.primary import Primary

CA_TIMEOUT = 5.0  # seconds


class LocalPrimary(Primary):
    runtime: ClassVar[str] = "local"
    prometheus_folder: ClassVar[str] = "prometheus"

    @property
    def root(self) -> bytes:
        """The trust bundle, PEM."""
        return (self.folder / ".devmesh" / "root.pem").read_bytes()

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        context = ssl.create_default_context(cadata=self.root.decode())
        connection = HTTPSConnection("127.0.0.1", self.state["ports"]["ca"], timeout=CA_TIMEOUT, context=context)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise DevmeshError(
                f"the CA of the mesh in {self.folder} does not answer: {error}", f"cd {self.folder} && devmesh status"
            ) from error
        finally:
            connection.close()
        if response.status not in (200, 404):
            raise DevmeshError(f"the CA of the mesh in {self.folder} refuses: {answer}", f"cd {self.folder} && devmesh down && devmesh up")
        return answer
