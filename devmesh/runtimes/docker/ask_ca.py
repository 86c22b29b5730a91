"""`python -m devmesh.runtimes.docker.ask_ca METHOD PATH [BODY]`, in the CA's own container: a request with the mesh's token, the answer on standard output.

The CA is on the control network only, so a second project's `up` asks it from inside. No secret is an argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

from devmesh.ca.ask import ask

# As the container of `parts.render_parts` has them; what makes that file is not imported here.
ROOT, TOKEN = Path("/var/lib/devmesh/ca/root.pem"), Path("/etc/devmesh/mesh-token")


def main() -> None:
    method, path, *body = sys.argv[1:]
    status, text = ask(15011, ROOT.read_text(), TOKEN.read_text().strip(), method, path, *body)
    sys.stdout.write(text)
    sys.exit(0 if status in (200, 404) else 1)


if __name__ == "__main__":
    main()
