"""An image registry (Docker Registry HTTP API v2) of images that arrive whole, and of images that do not; the script is in each image's name."""

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

NAMES = ("whole", "broken", "cut")
PRIVATE = "/v2/private/"


def refusal(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()


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


def image(name: str) -> dict[str, bytes]:
    """Path below the repository -> what is served there; the layer of `broken` has other bytes than its digest says."""
    # other content than the whole one's, which the engine would not fetch again
    tar = layer("hello", name.encode() * 1_000)
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
    served = packed[:-100] + bytes(100) if name == "broken" else packed
    return {
        "manifests/1": manifest,
        f"manifests/{digest(manifest)}": manifest,
        f"blobs/{digest(config)}": config,
        f"blobs/{digest(packed)}": served,
    }


def answer(content: dict[str, bytes], path: str) -> tuple[int, bytes]:
    if path.startswith(PRIVATE):
        return 401, refusal("UNAUTHORIZED")
    if path == "/v2/":
        return 200, b"{}"
    return (200, content[path]) if path in content else (404, refusal("MANIFEST_UNKNOWN"))


@contextmanager
def registry() -> Iterator[str]:
    """`127.0.0.1:PORT`, which every engine takes for an insecure registry; each image of `NAMES` has the tag `1`.

    `whole` is pulled well; the layer of `broken` is not what its digest says; the connection ends in the middle of every layer of `cut`;
    `private` is nobody's to see; any other is unknown.
    """
    content = {f"/v2/{name}/{path}": body for name in NAMES for path, body in image(name).items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(content, self.path)
            self.send_response(status)
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.end_headers()
            cut = self.path.startswith("/v2/cut/blobs/")
            self.close_connection |= cut
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if cut else body)

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
