"""Counts its visits in Redis and asks PostgreSQL for its first word, without any driver."""

import http.server
import os
import socket
import struct


def redis():
    with socket.create_connection((os.environ["CACHE_HOST"], 6379), timeout=5) as sock:
        sock.sendall(b"INCR hits\r\n")
        return sock.recv(100).decode().strip()


def postgres():
    """The startup message's answer: R, a request to authenticate."""
    with socket.create_connection((os.environ["DB_HOST"], 5432), timeout=5) as sock:
        body = struct.pack("!I", 196608) + b"user\0postgres\0\0"
        sock.sendall(struct.pack("!I", len(body) + 4) + body)
        return sock.recv(9)[:1].decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"api {socket.gethostname()} redis {redis()} postgres {postgres()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
