"""Random routes and random requests to them, by seed, from one vocabulary, so that they meet.

Chance decides nothing about an answer: shares are none or all, and who is to be timed out is never answered (`/late`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.draws import Draws

Json = dict[str, Any]
# host: port that its callers use. `reviews` and `httpbin` have several workloads.
SERVICES = {"reviews": 9080, "ratings": 9080, "details": 9080, "httpbin": 8000}
PREFIXES = ("/", "/a", "/a/", "/a/b", "/api", "/old/", "/x;y", "/%7Euser", "/a%2Fb", "/late", "/A")
REGEXES = ("/a.*", "/a/[^/]+", ".*", "/api/v[0-9]+/.*", "/(a|x).*")
NAMES = ("x-a", "x-b", "end-user", "cookie", "x-user")
VALUES = ("1", "jason", "b", "two words", "")
ORIGINS = ("http://a.example", "https://b.example", "https://b.example:8443", "null", "*", "")
ADDED = (
    "1", "two words", "%REQ(x-b)%", "100%%", "%PROTOCOL%", "%REQ(:method)%-%REQ(:path)%", "%REQ(:authority)%", "%RESPONSE_CODE%", "%REQ(gone?x-a)%",
    "%REQ(x-b):2%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%RESP(x-told)%", "%ROUTE_NAME%", "%REQ(cookie)%",
)  # fmt: skip
RETRY_ON = (
    "5xx", "gateway-error", "503,504", "reset", "connect-failure", "retriable-4xx", "5xx,retriable-4xx,418", "refused-stream", "409", "cancelled,unavailable",
    "reset-before-request", "envoy-ratelimited", "connect-failure,refused-stream,unavailable,cancelled,503",
)  # fmt: skip
# What an app is told to do, one step for each attempt (scripted.py).
JOINED = ("x-forwarded-for", "via", "user-agent")  # Envoy keeps one line of these
STEPS = ("200", "200", "200", "503", "500", "502", "504", "404", "409", "418", "429", "reset", "limited", "grpc-14", "hops", "201", "302")
LATE = "never"


@dataclass(frozen=True)
class Asked:
    """A request as it is written: header lines as they are, so that repeated names and odd spellings stay."""

    service: str
    method: str
    target: str
    lines: tuple[tuple[str, str], ...]
    body: str = ""
    chunked: bool = False

    def text(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.lines)]
        body = self.body
        if self.chunked:
            lines.append("transfer-encoding: chunked")
            body = (f"{len(body):x}\r\n{body}\r\n" if body else "") + "0\r\n\r\n"
        elif body:
            lines.append(f"content-length: {len(body)}")
        return ("\r\n".join([*lines, "", ""]) + body).encode("latin-1")


class Traffic(Draws):
    """One seed's VirtualServices and requests."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._headers: dict[str, list[str]] = {}

    # -- routes ----------------------------------------------------------------------------------------------------

    def yaml(self) -> str:
        return "---\n".join(json.dumps(self._virtual_service(host), indent=1) + "\n" for host in SERVICES)

    def _virtual_service(self, host: str) -> Json:
        routes = [self._late(host), *(self._route(host) for _ in range(self._rng.randint(3, 7)))]
        spec = {"hosts": [host], "http": routes}
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": host, "namespace": "default"},
            "spec": spec,
        }

    def _late(self, host: str) -> Json:
        """Timed out: by the route, or by each attempt; never by whichever comes first."""
        limit = self._any(
            {"timeout": "0.2s", "retries": {"attempts": 0}},
            {"timeout": "0.2s"},
            {"retries": {"attempts": 1, "perTryTimeout": "0.1s", "retryOn": self._any("5xx", "gateway-error", "reset", "409")}},
            {"fault": {"delay": {"fixedDelay": "0.01s", "percentage": {"value": 100}}}, "timeout": "0.2s"},
        )
        return {"name": "late", "match": [{"uri": {"prefix": "/late"}}], **self._forward(host), **limit}

    def _route(self, host: str) -> Json:
        route = self._with(
            name=(0.3, lambda: self._any("r1", "primary")),
            match=(0.8, lambda: [self._match(host) for _ in range(self._rng.randint(1, 2))]),
            corsPolicy=(0.25, self._cors),
            headers=(0.4, self._header_edits),
            fault=(0.12, self._fault),
        )
        kind = self._rng.random()
        if kind < 0.15:
            return {**route, "redirect": self._redirect()}
        if kind < 0.25:
            body = self._with(body=(0.5, lambda: self._any({"string": "hello"}, {"bytes": "aGVsbG8="})))
            return {**route, "directResponse": {"status": self._any(200, 204, 304, 404, 503, 299), **body}}
        return {**route, **self._with(rewrite=(0.4, self._rewrite), retries=(0.4, self._retries)), **self._forward(host)}

    def _forward(self, host: str) -> Json:
        to = {"destination": {"host": self._any(host, host, host, *SERVICES), "port": {}}}
        to["destination"]["port"] = {"number": SERVICES[to["destination"]["host"]]}
        routes = [{**to, **self._with(headers=(0.25, self._header_edits))}]
        if self._maybe(0.1):  # of two the one that has every weight
            routes = [{**routes[0], "weight": 100}, {"destination": {"host": "ratings"}, "weight": 0}]
        return {"route": routes}

    def _string(self, *values: str, regexes: Sequence[str] = (".*", "j.*", "[0-9]+")) -> Json:
        kind = self._any("exact", "prefix", "regex")
        return {kind: self._any(*(regexes if kind == "regex" else [value for value in values if value] or ["1"]))}

    def _match(self, host: str) -> Json:
        names = (*NAMES, ":method", ":authority", ":path", ":scheme")
        return self._with(
            uri=(0.8, lambda: self._string(*PREFIXES, regexes=REGEXES)),
            method=(0.15, lambda: self._string("GET", "POST", regexes=("P.*", "GET|HEAD"))),
            scheme=(0.07, lambda: self._string("http", "https", regexes=("https?",))),
            authority=(0.1, lambda: self._string(host, f"{host}:{SERVICES[host]}", regexes=(".*", host, f"{host}.*"))),
            headers=(0.25, lambda: {name: self._any(self._string(*VALUES), {}) for name in self._some(names, 2)}),
            withoutHeaders=(0.1, lambda: {self._any(*NAMES): self._any(self._string(*VALUES), {})}),
            queryParams=(0.15, lambda: {self._any("q", "p", "Q"): self._any(self._string("1", "a", "a%20b", regexes=("a.*", "1?")), {})}),
            ignoreUriCase=(0.15, lambda: True),
        )

    def _header_edits(self) -> Json:
        return self._with(request=(0.7, self._operations), response=(0.6, self._operations))

    def _operations(self) -> Json:
        names = (
            "x-a",
            "x-b",
            "x-new",
            "X-Odd",
            "x-told",
            "user-agent",
            "cookie",
            "x-forwarded-for",
            "x-envoy-foo",
            "server",
            "host-x",
            "via",
        )
        return self._with(
            set=(0.5, lambda: {name: self._any(*ADDED) for name in self._some(names, 2)}),
            add=(0.5, lambda: {name: self._any(*ADDED) for name in self._some([one for one in names if one not in JOINED], 2)}),
            remove=(0.4, lambda: self._some((*names, "content-type", "accept", "x-forwarded-proto", "x-request-id", "x-app-lines"), 3)),
        )

    def _redirect(self) -> Json:
        out = self._with(
            uri=(0.6, lambda: self._any("/new", "new", "/x/y?z=1", "/%20")),
            authority=(0.4, lambda: self._any("other.example", "other.example:90")),
            port=(0.25, lambda: self._any(80, 443, 8443)),
            scheme=(0.3, lambda: self._any("http", "https")),
            redirectCode=(0.5, lambda: self._any(301, 302, 303, 307, 308)),
        )
        if "port" not in out:
            out |= self._with(derivePort=(0.3, lambda: self._any("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")))
        return out if {"uri", "authority", "port", "scheme"} & set(out) else {**out, "uri": "/z"}

    def _rewrite(self) -> Json:
        regex = self._any(("^/a/(.*)$", r"/b/\1"), ("a", "zz"), ("/([^/]*)/", r"/\1-\1/"), ("[0-9]+", ""), ("b*", "-"), ("^.*$", "/all"))
        path = (
            {"uriRegexRewrite": {"match": regex[0], "rewrite": regex[1]}}
            if self._maybe(0.4)
            else {"uri": self._any("/", "/new", "/new/", "/q?r=1")}
        )
        return {**path, **self._with(authority=(0.4, lambda: self._any("other.example", "Ratings:9080")))}

    def _retries(self) -> Json:
        attempts = self._any(0, 1, 2, 3)
        if not attempts:
            return {"attempts": 0}
        return {"attempts": attempts, "backoff": "0.001s", **self._with(retryOn=(0.85, lambda: self._any(*RETRY_ON)))}

    def _fault(self) -> Json:
        whole = {"percentage": {"value": 100}}
        abort = {
            **self._any({"httpStatus": self._any(400, 503, 200, 204, 404, 599)}, {"grpcStatus": self._any("UNAVAILABLE", "NOT_FOUND")}),
            **whole,
        }
        delay = {"fixedDelay": "0.002s", **whole}
        return dict(
            self._any(
                {"abort": abort}, {"abort": abort, "delay": delay}, {"delay": delay}, {"abort": {**abort, "percentage": {"value": 0}}}
            )
        )

    def _cors(self) -> Json:
        return self._with(
            allowOrigins=(
                0.9,
                lambda: [self._string(*ORIGINS, regexes=("https://b.*", ".*", "http://[a-z.]+")) for _ in range(self._rng.randint(1, 2))],
            ),
            allowMethods=(0.6, lambda: self._any(["GET", "POST"], ["*"], ["PUT"])),
            allowHeaders=(0.5, lambda: self._any(["x-a", "X-B"], ["*"])),
            exposeHeaders=(0.5, lambda: self._any(["x-e", "x-f"], ["*"])),
            maxAge=(0.4, lambda: self._any("1s", "1m", "24h")),
            allowCredentials=(0.5, lambda: self._any(True, False)),
            unmatchedPreflights=(0.4, lambda: self._any("FORWARD", "IGNORE", "UNSPECIFIED")),
        )

    # -- requests --------------------------------------------------------------------------------------------------

    def requests(self, count: int) -> list[Asked]:
        return [self._request(number) for number in range(count)]

    def _request(self, number: int) -> Asked:
        service = self._any(*SERVICES)
        target = self._target()
        method = self._any("GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "TRACE")
        lines = [("host", self._authority(service)), *self._lines()]
        if self._maybe(0.25):
            lines.append(("origin", self._any(*ORIGINS)))
            if self._maybe(0.6):
                method = self._any("OPTIONS", "OPTIONS", "OPTIONS", method)
                lines += [("access-control-request-method", self._any("GET", "PUT", ""))] * self._any(1, 1, 1, 0)
                lines += [("access-control-request-headers", self._any("x-a", "x-q, x-r", ""))] * self._any(0, 1)
        steps = LATE if target.startswith("/late") else ",".join(self._any(*STEPS) for _ in range(4))
        self._rng.shuffle(lines)
        lines += [("x-ask", str(number)), ("x-script", steps)]
        body = self._any("", "hello", "x" * 5000) if method in ("POST", "PUT", "PATCH", "DELETE") or self._maybe(0.05) else ""
        return Asked(service, method, target, tuple(lines), body, chunked=bool(body) and self._maybe(0.3))

    def _target(self) -> str:
        if self._maybe(0.12):
            return "/late" + self._any("", "/x", "?q=1")
        path = self._any(*PREFIXES[:-2], "/A", "/a", "/a/b", "/api", "/old/x", "/api/v1/x")
        more = (
            "",
            "",
            "/",
            "/17",
            "//c",
            "/./d",
            "/../e",
            "/%2e%2e/f",
            "/%41",
            "/a;b=c",
            "/%2F",
            "/%zz",
            "/%",
            "/a|b",
            "\\c",
            "/..",
            "/.",
            "/%5Cx",
            "/b%20c",
            "/" + "l" * 3000,
        )
        path += "".join(self._any(*more) for _ in range(self._any(1, 1, 2)))
        query = (
            self._any(
                "", "", "", "?q=1", "?q=a&p=1", "?p=&q=a%20b", "?", "?q", "?Q=1&q=2&q=1", "?a//b/../c", "?x=%zz#", "?q=1?p=1", "?&&q=1"
            )
            if self._maybe(0.6)
            else ""
        )
        return path.replace("#", "") + query.replace("#", "")

    def _authority(self, service: str) -> str:
        port = SERVICES[service]
        usual = (service, f"{service}:{port}", f"{service}.default.svc.cluster.local", f"{service}.default:{port}")
        odd = (
            service.upper(),
            f"{service}.",
            f"{service}:80",
            f"{service.title()}:{port}",
            f"{service}.:{port}",
            f"{service}:",
            f"{service}:0{port}",
            "nobody.example",
            f"{service}:x",
            "",
        )
        return str(self._any(*usual) if self._maybe(0.85) else self._any(*odd))

    def _lines(self) -> list[tuple[str, str]]:
        known = [
            ("user-agent", self._any("me", "")), ("x-forwarded-for", self._any("192.0.2.9", "192.0.2.9, 192.0.2.8", "x", "")),
            ("x-forwarded-proto", self._any("https", "http", "ftp")), ("x-request-id", self._any("7", "3ab2e8f0-1111-4a4a-9a9a-0123456789ab", "")),
            ("x-envoy-attempt-count", "9"), ("x-envoy-original-path", "/forged"), ("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3"),
            ("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-decorator-operation", "x"), ("x-envoy-external-address", "1"), ("x-envoy-internal", "true"),
            ("x-forwarded-host", "f"), ("forwarded", "for=1"), ("via", "1.1 x"), ("te", self._any("trailers", "gzip")), ("accept", "*/*"),
            ("content-type", self._any("application/grpc", "text/plain", "application/grpc+proto", "application/grpc-web")),
            ("x-forwarded-client-cert", "By=x"), ("x-forwarded-port", "1"), ("connection", self._any("keep-alive", "x-a", "close, x-b", "te", "")),
            ("upgrade", self._any("h2c", "other")), ("keep-alive", "5"), ("proxy-connection", "keep-alive"), ("accept-encoding", "gzip"),
            ("grpc-timeout", "100S"), ("expect", "100-continue"), ("authorization", "Bearer x"), ("range", "bytes=0-1"), ("server", "x"), ("date", "x"),
            ("x-envoy-force-trace", "true"), ("x-client-trace-id", "9"), ("x-b3-sampled", "1"), ("transfer-encodin", "x"), ("trailer", "x-t"),
            ("if-none-match", '"x"'), ("cache-control", "no-cache"), ("pragma", "x"), ("x-original-url", "/x"), ("x-http-method-override", "PUT"),
        ]  # fmt: skip
        lines = (
            [(self._any(name, name, name.upper(), name.title()), self._any(*VALUES)) for name in self._some(NAMES, 3)]
            if self._maybe(0.6)
            else []
        )
        if lines and self._maybe(0.3):
            lines.append((lines[0][0], self._any(*VALUES)))  # a second line of one name
        if self._maybe(0.5):
            lines += self._some(known, 4)
        return [
            (name, self._any("user=jason", "a=1; user=jason", 'user="x"', value)) if name.lower() == "cookie" else (name, value)
            for name, value in lines
        ]
