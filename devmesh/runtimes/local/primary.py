"""A first mesh on the local runtime: its CA answers on this machine's loopback."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any, ClassVar

from devmesh.ca.ask import ask
from devmesh.errors import DevmeshError
from devmesh.runtimes.primary import Primary


class LocalPrimary(Primary):
    runtime: ClassVar[str] = "local"
    prometheus_folder: ClassVar[str] = "prometheus"

    @property
    def root(self) -> bytes:
        """The trust bundle, PEM."""
        return (self.folder / ".devmesh" / "root.pem").read_bytes()

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        try:
            status, text = ask(self.state["ports"]["ca"], self.root.decode(), self.token, method, path, body)
            answer = json.loads(text)
        except (OSError, HTTPException, ValueError) as error:
            raise DevmeshError(
                f"the CA of the mesh in {self.folder} does not answer: {error}", f"cd {self.folder} && devmesh status"
            ) from error
        if status not in (200, 404):
            raise DevmeshError(f"the CA of the mesh in {self.folder} refuses: {answer}", f"cd {self.folder} && devmesh down && devmesh up")
        return answer
