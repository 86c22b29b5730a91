"""An image registry of one image (Docker Registry HTTP API v2), whole or with a layer that is not what its manifest says."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


def digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def layer(name: str, content: bytes) -> bytes:
    """A tar of one file, before its compression."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def image(*, broken: bool) -> dict[str, bytes]:
    """Path below the repository -> what is served there; a broken image's layer has other bytes than its digest says."""
    # other content than the whole one's, which the engine would not fetch again
    tar = layer("hello", (b"broken" if broken else b"whole") * 1_000)
    packed = gzip.compress(tar, mtime=0)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(packed), "digest": digest(packed)},
            ],
        }
    ).encode()
    served = packed[:-100] + bytes(100) if broken else packed
    return {
        "manifests/1": manifest,
        f"manifests/{digest(manifest)}": manifest,
        f"blobs/{digest(config)}": config,
        f"blobs/{digest(packed)}": served,
    }


@contextmanager
def registry() -> Iterator[str]:
    """`127.0.0.1:PORT`, which every engine takes for an insecure registry; it has `whole:1` and `broken:1`."""
    content = {f"/v2/{name}/{path}": body for name in ("whole", "broken") for path, body in image(broken=name == "broken").items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known = self.path == "/v2/" or self.path in content
            body = content.get(self.path, b"{}") if known else UNKNOWN
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what went wrong."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="image registry")
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
