"""`python -m devmesh.runtimes.docker.ask_ca METHOD PATH [BODY]`, in the CA's own container: a request with the mesh's token, the answer on standard output.

The CA is on the control network only, so a second project's `up` asks it from inside. No secret is an argument.
"""

from __future__ import annotations

import ssl
import sys
from http.client import HTTPSConnection
from pathlib import Path

# As the container of `parts.render_parts` has them; what makes that file is not imported here.
ROOT, TOKEN = Path("/var/lib/devmesh/ca/root.pem"), Path("/etc/devmesh/mesh-token")
TIMEOUT = 5.0  # seconds


def main() -> None:
    method, path, *body = sys.argv[1:]
    context = ssl.create_default_context(cafile=str(ROOT))
    connection = HTTPSConnection("127.0.0.1", 15011, timeout=TIMEOUT, context=context)
    token = TOKEN.read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, body[0] if body else None, headers)
    response = connection.getresponse()
    sys.stdout.write(response.read().decode())
    sys.exit(0 if response.status in (200, 404) else 1)


if __name__ == "__main__":
    main()
