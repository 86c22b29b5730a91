"""Random bytes of HTTP/1.1, by seed: requests as a client might write them by mistake or malice, and answers as an app might."""

from __future__ import annotations

from tests.support.draws import Draws

METHODS = (
    "GET",
    "GET",
    "POST",
    "POST",
    "PUT",
    "HEAD",
    "OPTIONS",
    "DELETE",
    "CONNECT",
    "get",
    "PURGE",
    "M-SEARCH",
    "X_Y",
    "G ET",
    "",
    "GE\tT",
    "TRACE",
)
TARGETS = (
    "/", "/x", "/x?y", "*", "http://a/x", "http://a:80", "HTTP://A/x", "https://a/x", "ftp://a/x", "http://u:p@a/x", "http://", "http:///x", "//a/x", "a:80",
    "x", "?x", "/a b", "/%", "/\x01", "/x\x7f", "/é", "", "/x#y", "http://a?x", "http://[::1]:80/x", "http://a:99999/x", "/" + "l" * 9000, "http://b/x",
)  # fmt: skip
VERSIONS = ("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/11", "", "HTTP/0.9", "HTTP/1.1.1", "ICY/1.1")
HOSTS = ("host: a",) * 8 + (
    "Host: a",
    "host: a, b",
    "host:",
    "host:a",
    "host:\ta\t",
    "host: a:80",
    "host: A",
    "host: [::1]",
    "host: a/b",
    "host: a b",
    "host: a@b",
    "hos: a",
)
FRAMINGS = (
    "content-length: 3", "content-length: 3", "transfer-encoding: chunked", "transfer-encoding: chunked", "Transfer-Encoding: Chunked", "content-length: 0",
    "content-length: 03", "content-length: +3", "content-length: 3, 3", "content-length: 3,4", "content-length:", "content-length: 3 ", "content-length: 0x3", "content-length: -0",
    "content-length: 99999999999999999999", "content-length: 18446744073709551615", "transfer-encoding: gzip, chunked", "transfer-encoding: chunked, gzip", "transfer-encoding: identity", "transfer-encoding:", "transfer-encoding: xchunked",
    "transfer-encoding: chunked;q=1", "transfer-encoding: ,chunked", "transfer-encoding: \tchunked", "transfer-encoding : chunked", "transfer_encoding: chunked", "content-length: ٣",
)  # fmt: skip
LINES = (
    "x: 1", "x: 1", "X-Y: a\tb", "x:", ": x", "x", "x y: 1", "x: a\x00b", "x: a\x01b", "x: é", "x(: 1", "x: \x7f", "x_y: 1", "connection: close", "connection: keep-alive",
    "connection: x", "connection: x, close", "connection: host", "connection: content-length", "connection: transfer-encoding", "connection: ,", "connection: te, x-forwarded-for",
    "connection: upgrade", "upgrade: websocket", "upgrade: h2c", "upgrade: x", "expect: 100-continue", "expect: 200-ok", "expect: 100-Continue, x", "te: trailers", "te: trailers;q=1", "te: gzip, trailers", "trailer: x",
    "keep-alive: 5", "proxy-connection: close", "http2-settings: AAMA", "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https", "content-type: application/grpc",
    "x: " + "v" * 8000, "y: " + "w" * 70_000, ":method: GET", ":path: /z", "content-encoding: gzip", "range: bytes=0-",
)  # fmt: skip
BODIES = (
    "abc", "3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "", "3;x=y\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nx: y\r\n\r\n", "03\r\nabc\r\n000\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n", "g\r\n", "-3\r\n", "\r\n", "3;\r\nabc\r\n0\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0;last\r\n\r\n", "ffffffffffffffffff\r\n",
    "3\r\nabc\r\n0\r\n", "3\r\nab", "3;a\x01=b\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n x: y\r\n\r\n", "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", "3\r\nabc\r\n0\r\ncontent-length: 1\r\n\r\n",
)  # fmt: skip
STATUS_LINES = ("HTTP/1.1 200 OK",) * 12 + (
    "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 205 Reset", "HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "http/1.1 200 OK", "HTTP/2 200 OK",
    "HTTP/1.1 99 X", "HTTP/1.1 abc X", "200 OK", "HTTP/1.1 600 X", "HTTP/1.1 200 é", "HTTP/1.1 206 Part", "HTTP/1.1 301 Moved", "HTTP/1.1 000 X",
)  # fmt: skip
BEFORE = ("",) * 10 + (
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 100 Continue\r\nx: y\r\n\r\n",
    "HTTP/1.1 102 Processing\r\n\r\n",
    "\r\n",
    "HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n",
)
ANSWER_LINES = (
    "x: 1", "x: 1", "X-Y: a\tb", "x:", ": x", "x", "x y: 1", "x: a\x00b", "x: a\x01b", "x: é", "x(: 1", "x: \x7f", "x_y: 1", "connection: close", "connection: x", "connection: upgrade", "upgrade: websocket",
    "set-cookie: a=1", "set-cookie: b=2", "date: x", "server: x", "via: x", "trailer: x", "te: trailers", "host: a", "keep-alive: 5", "proxy-connection: close", "content-encoding: gzip", "content-type:",
    "x: " + "v" * 8000, "y: " + "w" * 70_000, ":status: 404", "proxy-authenticate: x", "location: /x", "www-authenticate: a", "www-authenticate: b", "x-envoy-upstream-service-time: 5", "x-envoy-overloaded: true",
)  # fmt: skip


class Bytes(Draws):
    def _lines(self, of: tuple[str, ...]) -> list[str]:
        return [self._any(*of) for _ in range(self._any(0, 0, 1, 1, 2, 3))]

    def request(self) -> bytes:
        """One oddity or two, not so many that each hides the others."""
        odd = self._rng.sample(("method", "target", "version", "host", "framing", "lines", "body"), self._any(1, 1, 2))
        method = self._any(*METHODS) if "method" in odd else self._any("GET", "POST")
        target = self._any(*TARGETS) if "target" in odd else "/x"
        version = self._any(*VERSIONS) if "version" in odd else "HTTP/1.1"
        lines = [self._any(*HOSTS) if "host" in odd else "host: a"]
        lines += (
            [self._any(*FRAMINGS)]
            if "framing" in odd
            else [self._any("content-length: 3", "transfer-encoding: chunked")]
            if "body" in odd
            else []
        )
        lines += self._lines(LINES) if "lines" in odd else []
        if self._rng.random() < 0.2:
            self._rng.shuffle(lines)
        body = self._any(*BODIES) if {"framing", "body"} & set(odd) else ""
        return ("\r\n".join([f"{method} {target} {version}", *lines, "", ""]) + body).encode("utf-8")

    def answer(self) -> bytes:
        odd = self._rng.sample(("status", "framing", "lines", "body", "before"), self._any(1, 1, 2))
        lines = [self._any(*FRAMINGS)] if "framing" in odd else [self._any("content-length: 3", "transfer-encoding: chunked", "x: y")]
        lines += self._lines(ANSWER_LINES) if "lines" in odd else []
        body = self._any(*BODIES) if {"framing", "body"} & set(odd) else {"c": "abc", "t": BODIES[1], "x": "to the end"}[lines[0][0]]
        head = "\r\n".join([self._any(*STATUS_LINES) if "status" in odd else STATUS_LINES[0], *lines, "", ""])
        return ((self._any(*BEFORE) if "before" in odd else "") + head + body).encode("utf-8")
