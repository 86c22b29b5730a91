"""The shop's items from PostgreSQL, its visits counted in Redis."""

import json
import os
import signal
import socket
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import redis

PASSWORD = Path("/run/secrets/db_password").read_text(encoding="utf-8").strip()
CACHE = redis.Redis(host=os.environ["CACHE_HOST"], socket_timeout=3)


def items():
    with (
        closing(psycopg2.connect(host=os.environ["DB_HOST"], user="shop", password=PASSWORD, dbname="shop", connect_timeout=3)) as database,
        database.cursor() as cursor,
    ):
        cursor.execute("SELECT name, price FROM items ORDER BY name")
        return [{"name": name, "price": price} for name, price in cursor]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
            return
        try:
            self.answer(200, {"items": items(), "visits": CACHE.incr("visits"), "served_by": socket.gethostname()})
        except (psycopg2.Error, redis.RedisError) as error:
            self.answer(503, {"error": str(error).strip()})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", 5000), Handler).serve_forever()
