"""Random Istio YAML by seed: what is valid in Istio and honoured here, of every kind that is compiled, in combinations that nobody would write by hand."""

from __future__ import annotations

import json
from typing import Any

from tests.support.draws import Draws

Json = dict[str, Any]
NETWORKING, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"
SERVICES = ("productpage", "details", "reviews", "ratings", "httpbin", "store", "multi", "multi", "far")
OUTSIDE = ("api.example.com", "db.example.com", "nowhere.example.com", "x.example.org")
DURATIONS = ("0.5s", "1s", "10s", "250ms", "1m", "2h", "1.5s", "7s", "30s")
LABELS = ({"version": "v1"}, {"version": "v2"}, {"app": "productpage"}, {"app": "reviews", "version": "v1"}, {"version": "v9"})
RETRY_ON = (
    "5xx", "gateway-error,503", "503,504", "reset,connect-failure,refused-stream", "retriable-status-codes", "cancelled,unavailable", "retriable-headers",
)  # fmt: skip
BALANCERS = ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH", "LEAST_CONN", "UNSPECIFIED")
HASHES: tuple[Json, ...] = (
    {"httpHeaderName": "x-user"},
    {"httpQueryParameterName": "q"},
    {"useSourceIp": True},
    {"httpCookie": {"name": "c", "ttl": "0s"}},
    {"httpCookie": {"name": "c", "path": "/p", "ttl": "5s"}},
)
SERVER_CERTIFICATE = {"serverCertificate": "/etc/c.pem", "privateKey": "/etc/k.pem"}
SERVER_TLS: tuple[Json, ...] = (
    {"mode": "SIMPLE", **SERVER_CERTIFICATE},
    {"mode": "PASSTHROUGH"},
    {"mode": "MUTUAL", **SERVER_CERTIFICATE, "caCertificates": "/etc/ca.pem"},
    {"mode": "ISTIO_MUTUAL"},
)
SERVER_HOSTS = (
    "*",
    "bookinfo.example.com",
    "*.example.com",
    "default/*",
    "./shop.example.com",
    "*/reviews.example.com",
    "other/x.example.com",
)
MTLS = ("STRICT", "PERMISSIVE", "DISABLE", "UNSET")


class Inputs(Draws):
    """One seed's resources."""

    def yaml(self) -> str:
        documents = self.documents()
        self._rng.shuffle(documents)  # their ages
        return "---\n".join(json.dumps(one, indent=1) + "\n" for one in documents)

    def documents(self) -> list[Json]:
        return [
            *(self._virtual_service(number) for number in range(self._any(1, 1, 2, 3))),
            *(self._destination_rule(number) for number in range(self._any(0, 1, 2, 3))),
            *(self._gateway(number) for number in range(1, 1 + self._any(0, 0, 1, 2))),
            *(self._peer_authentication(number) for number in range(self._any(0, 0, 1, 2))),
            *(self._service_entry(number) for number in range(self._any(0, 0, 1, 2))),
        ]

    # -- chance ----------------------------------------------------------------------------------------------------

    def _duration(self) -> str:
        return str(self._any(*DURATIONS))

    def _percent(self) -> Json:
        return {"value": self._any(0.1, 1, 10, 33.333, 50, 99.99, 100, 0)}

    def _labels(self) -> Json:
        return dict(self._any(*LABELS))

    def _host(self, outside: float = 0.1) -> str:
        """Short and full names, and such with a dot, which Istio leaves as they are."""
        if self._maybe(outside):
            return str(self._any(*OUTSIDE))
        name = self._any(*SERVICES)
        if name == "far":
            return str(self._any("far.other.svc.cluster.local", "far"))
        return str(self._any(name, name, name, f"{name}.default.svc.cluster.local", f"{name}.default", f"{name}.default.svc"))

    def _resource(self, version: str, kind: str, name: str, spec: Json, namespace: str = "") -> Json:
        namespace = namespace or self._any(*["default"] * 18, "istio-system", "other")
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}

    # -- VirtualService --------------------------------------------------------------------------------------------

    def _virtual_service(self, number: int) -> Json:
        spec: Json = {"hosts": list(dict.fromkeys(self._host(0.15) for _ in range(self._any(1, 1, 1, 2))))}
        if self._maybe(0.05):
            spec["hosts"] = ["*.default.svc.cluster.local"]
        if self._maybe(0.3):
            gateways = self._some(["mesh", self._any("gw1", "default/gw1"), "istio-system/gw2", "gw3"], 3)
            if self._maybe(0.5):
                spec["hosts"] = [self._any("bookinfo.example.com", "*", "*.example.com", "shop.example.com", "reviews.example.com")]
            if spec["hosts"] == ["*"]:
                gateways = [name for name in gateways if name != "mesh"] or ["gw1"]
            spec["gateways"] = gateways
        kind = self._rng.random()
        if kind < 0.85:
            spec["http"] = [self._http_route() for _ in range(self._rng.randint(1, 4))]
        if kind > 0.8:
            spec["tcp"] = [self._tcp_route() for _ in range(self._rng.randint(1, 2))]
        if kind > 0.9:
            spec["tls"] = [self._tls_route([host for host in spec["hosts"] if host != "*"] or ["x.example.org"])]
        spec |= self._with(exportTo=(0.1, lambda: self._any(["."], ["*"], ["default"], ["istio-system"], ["other"])))
        if "exportTo" in spec:
            return self._resource(NETWORKING, "VirtualService", f"vs{number}", spec, "default")
        return self._resource(NETWORKING, "VirtualService", f"vs{number}", spec)

    def _http_route(self) -> Json:
        route = self._with(
            name=(0.3, lambda: self._any("r1", "r2", "primary")),
            match=(0.6, lambda: [self._match() for _ in range(self._rng.randint(1, 3))]),
            corsPolicy=(0.15, self._cors),
            headers=(0.25, self._headers),
        )
        kind = self._rng.random()
        if kind < 0.1:
            return {**route, "redirect": self._redirect()}
        if kind < 0.17:
            body = self._with(body=(0.5, lambda: self._any({"string": "hello"}, {"bytes": "aGVsbG8="})))
            return {**route, "directResponse": {"status": self._any(200, 204, 404, 503), **body}}
        return {**route, **self._forward()}

    def _forward(self) -> Json:
        out = self._with(
            rewrite=(0.25, self._rewrite),
            timeout=(0.3, self._duration),
            retries=(0.3, self._retries),
            fault=(0.2, self._fault),
        )
        kind = self._rng.random()
        if kind < 0.15:
            out |= {"mirror": self._destination(), **self._with(mirrorPercentage=(0.6, self._percent))}
        elif kind < 0.28:
            out["mirrors"] = [
                {"destination": self._destination(), **self._with(percentage=(0.6, self._percent))} for _ in range(self._rng.randint(1, 2))
            ]
        return {**out, "route": self._weighted()}

    def _weighted(self) -> list[Json]:
        number = self._any(1, 1, 2, 3)
        weights = [self._any(0, 10, 50, 100, 1) for _ in range(number)]
        if number > 1 and not any(weights):
            weights[0] = 100
        routes = [{"destination": self._destination(), **self._with(headers=(0.2, self._headers))} for _ in range(number)]
        if number == 1 and self._maybe(0.8):
            return routes
        return [{**one, "weight": weight} for one, weight in zip(routes, weights, strict=True)]

    def _destination(self) -> Json:
        return {
            "host": self._host(),
            **self._with(
                subset=(0.4, lambda: self._any("v1", "v2", "v3", "gone")),
                port=(0.3, lambda: {"number": self._any(9080, 8000, 6000, 80, 443, 9080, 8080, 7000, 50051)}),
            ),
        }

    def _string(self, *values: str) -> Json:
        return {self._any("exact", "prefix", "regex"): self._any(*values)}

    def _match(self) -> Json:
        return self._with(
            name=(0.15, lambda: self._any("m1", "m 2")),
            uri=(0.5, lambda: self._string("/", "/api", "/api/", "/a.*", "/api/v[0-9]+/x", "/x?y", "/%20")),
            scheme=(0.1, lambda: self._string("http", "https")),
            method=(0.2, lambda: self._string("GET", "POST", "P.*")),
            authority=(0.2, lambda: self._string("reviews", "reviews:9080", "example.com", ".*")),
            headers=(
                0.3,
                lambda: {name: self._any(self._string("jason", ".*", "^(.*?;)?(user=jason)(;.*)?$"), {}) for name in self._names()},
            ),
            withoutHeaders=(0.2, lambda: {self._any("x-z", "x-y"): self._any(self._string("jason", "a", ".*"), {})}),
            port=(0.15, lambda: self._any(9080, 8000, 6000, 80, 8080, 443, 7000, 9083)),
            sourceLabels=(0.15, self._labels),
            gateways=(0.15, lambda: self._some(["mesh", "gw1", "default/gw1", "istio-system/gw2", "gw2"], 2)),
            queryParams=(0.2, lambda: {self._any("q", "p"): self._any(self._string("1", "a.*"), {})}),
            ignoreUriCase=(0.2, lambda: True),
            sourceNamespace=(0.1, lambda: self._any("default", "istio-system", "other")),
        )

    def _names(self) -> list[str]:
        return self._some(["end-user", "x-a", "Cookie", ":method", ":authority", "uri", "method", "scheme", "authority"], 2)

    def _headers(self) -> Json:
        return self._with(request=(0.6, self._header_operations), response=(0.5, self._header_operations))

    def _header_operations(self) -> Json:
        return self._with(
            set=(0.5, lambda: {self._any("x-a", "x-b"): self._any("1", "two words", "%REQ(x-c)%", "100%%")}),
            add=(0.4, lambda: {self._any("x-c", "x-d"): self._any("v", "%DOWNSTREAM_REMOTE_ADDRESS%")}),
            remove=(0.4, lambda: self._some(["x-e", "x-f", "X-G"], 2)),
        )

    def _redirect(self) -> Json:
        out = self._with(
            uri=(0.6, lambda: self._any("/new", "new", "/x/y")),
            authority=(0.4, lambda: self._any("other.example", "other.example:90")),
            port=(0.3, lambda: self._any(80, 443, 8443)),
            scheme=(0.3, lambda: self._any("http", "https")),
            redirectCode=(0.4, lambda: self._any(301, 302, 303, 307, 308)),
        )
        if "port" not in out:
            out |= self._with(derivePort=(0.3, lambda: self._any("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")))
        return out if {"uri", "authority", "port", "scheme"} & set(out) else {**out, "uri": "/z"}

    def _rewrite(self) -> Json:
        path = (
            {"uriRegexRewrite": {"match": "^/a/(.*)$", "rewrite": r"/b/\1"}}
            if self._maybe(0.3)
            else {"uri": self._any("/", "/new", "/new/")}
        )
        return {**path, **self._with(authority=(0.5, lambda: self._any("other.example", "reviews")))}

    def _retries(self) -> Json:
        attempts = self._any(0, 1, 3, 10)
        if not attempts:
            return {"attempts": 0}
        return {
            "attempts": attempts,
            **self._with(
                perTryTimeout=(0.5, self._duration),
                retryOn=(0.6, lambda: self._any(*RETRY_ON)),
                retryIgnorePreviousHosts=(0.3, lambda: self._any(True, False)),
                backoff=(0.3, self._duration),
            ),
        }

    def _fault(self) -> Json:
        delay = {"fixedDelay": self._duration(), **self._with(percentage=(0.6, self._percent))}
        failure = self._any({"httpStatus": self._any(400, 503, 200, 599)}, {"grpcStatus": self._any("UNAVAILABLE", "NOT_FOUND")})
        abort = {**failure, **self._with(percentage=(0.6, self._percent))}
        return dict(self._any({"delay": delay}, {"abort": abort}, {"delay": delay, "abort": abort}))

    def _cors(self) -> Json:
        return self._with(
            allowOrigins=(0.8, lambda: [self._string("http://a.example", "https://b.*", "x") for _ in range(self._rng.randint(1, 2))]),
            allowMethods=(0.5, lambda: self._some(["GET", "POST", "PUT"], 2)),
            allowHeaders=(0.4, lambda: [self._any("x-a", "X-B")]),
            exposeHeaders=(0.4, lambda: ["x-e"]),
            maxAge=(0.4, lambda: self._any("1s", "1m", "24h")),
            allowCredentials=(0.4, lambda: self._any(True, False)),
            unmatchedPreflights=(0.3, lambda: self._any("FORWARD", "IGNORE", "UNSPECIFIED")),
        )

    def _tcp_route(self) -> Json:
        match = self._with(
            port=(0.7, lambda: self._any(6000, 9080, 31400, 9000, 7000)),
            sourceLabels=(0.3, self._labels),
            gateways=(0.3, lambda: ["mesh"]),
            sourceNamespace=(0.2, lambda: self._any("default", "other")),
        )
        return {"route": self._below_http(), **({"match": [match]} if match and self._maybe(0.6) else {})}

    def _tls_route(self, hosts: list[str]) -> Json:
        more = self._with(
            port=(0.6, lambda: self._any(443, 9080, 8443, 9444)), gateways=(0.2, lambda: ["mesh"]), sourceLabels=(0.2, self._labels)
        )
        return {"match": [{"sniHosts": hosts, **more}], "route": self._below_http()}

    def _below_http(self) -> list[Json]:
        number = self._any(1, 1, 2)
        hosts = ("store", "store", "api.example.com", "httpbin", "reviews", "db.example.com", "multi", "multi")
        return [
            {
                "destination": {
                    "host": self._any(*hosts),
                    "port": {"number": self._any(6000, 9080, 8000, 443, 9000, 8443)},
                    **self._with(subset=(0.3, lambda: self._any("v1", "v2"))),
                },
                **({"weight": self._any(10, 50, 90)} if number > 1 else {}),
            }
            for _ in range(number)
        ]

    # -- DestinationRule -------------------------------------------------------------------------------------------

    def _destination_rule(self, number: int) -> Json:
        host = self._any("*.default.svc.cluster.local", "*.example.com") if self._maybe(0.08) else self._host(0.15)
        spec: Json = {"host": host, **self._with(trafficPolicy=(0.7, self._policy))}
        subsets = [self._subset(name) for name in ("v1", "v2", "v3") if self._maybe(0.5)]
        spec |= {"subsets": subsets} if subsets else {}
        scope = self._rng.random()
        if scope < 0.1:
            spec["exportTo"] = self._any(["."], ["*"], ["default"], ["other"])
            return self._resource(NETWORKING, "DestinationRule", f"dr{number}", spec, "default")
        if scope < 0.2:
            spec["workloadSelector"] = {"matchLabels": {"app": self._any("httpbin", "productpage")}}
        version = self._any(NETWORKING, "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")
        return self._resource(version, "DestinationRule", f"dr{number}", spec)

    def _subset(self, name: str) -> Json:
        return {
            "name": name,
            **self._with(
                labels=(0.9, lambda: {"version": name, **({"app": "reviews"} if self._maybe(0.1) else {})}),
                trafficPolicy=(0.3, self._policy),
            ),
        }

    def _policy(self) -> Json:
        ports = (9080, 8000, 6000, 443, 8080, 7000, 9000)
        return {
            **self._parts(),
            **self._with(
                retryBudget=(0.1, lambda: {"percent": 30, "minRetryConcurrency": 4}),
                portLevelSettings=(
                    0.3,
                    lambda: [
                        {"port": {"number": port}, **(self._parts() or {"loadBalancer": {"simple": "RANDOM"}})}
                        for port in self._some(ports, 2)
                    ],
                ),
            ),
        }

    def _parts(self) -> Json:
        return self._with(
            loadBalancer=(0.5, self._balancer),
            connectionPool=(0.5, self._pool),
            outlierDetection=(0.4, self._outlier),
            tls=(0.35, self._tls),
        )

    def _balancer(self) -> Json:
        if self._maybe(0.6):
            return {"simple": self._any(*BALANCERS)}
        table = self._any(
            {"ringHash": {"minimumRingSize": self._any(1, 1024, 5000)}}, {"maglev": {"tableSize": 5}}, {"minimumRingSize": 2048}, {}, {}
        )
        return {"consistentHash": {**self._any(*HASHES), **table}}

    def _pool(self) -> Json:
        tcp = self._with(
            maxConnections=(0.6, lambda: self._any(1, 100)),
            connectTimeout=(0.4, self._duration),
            tcpKeepalive=(0.2, lambda: {"probes": 3, "time": "7200s", "interval": "75s"}),
            maxConnectionDuration=(0.2, self._duration),
            idleTimeout=(0.2, self._duration),
        )
        http = self._with(
            http1MaxPendingRequests=(0.5, lambda: self._any(1, 100)),
            http2MaxRequests=(0.5, lambda: self._any(1, 100)),
            maxRequestsPerConnection=(0.5, lambda: self._any(1, 10)),
            maxRetries=(0.5, lambda: self._any(1, 10)),
            idleTimeout=(0.4, self._duration),
        )
        return self._with(tcp=(0.6, lambda: tcp), http=(0.6, lambda: http))

    def _outlier(self) -> Json:
        out = self._with(
            consecutive5xxErrors=(0.5, lambda: self._any(0, 1, 7)),
            consecutiveGatewayErrors=(0.3, lambda: self._any(0, 1, 7)),
            interval=(0.4, self._duration),
            baseEjectionTime=(0.4, self._duration),
            maxEjectionPercent=(0.4, lambda: self._any(10, 100, 50)),
            minHealthPercent=(0.4, lambda: self._any(0, 10, 50)),
            splitExternalLocalOriginErrors=(0.2, lambda: True),
        )
        if "splitExternalLocalOriginErrors" in out:
            out |= self._with(consecutiveLocalOriginFailures=(0.4, lambda: self._any(1, 5)))
        return out

    def _tls(self) -> Json:
        mode = self._any("DISABLE", "SIMPLE", "ISTIO_MUTUAL", "MUTUAL")
        out: Json = {"mode": mode}
        if mode == "MUTUAL":
            out |= {"clientCertificate": "/etc/certs/c.pem", "privateKey": "/etc/certs/k.pem"}
        if mode in ("SIMPLE", "MUTUAL"):
            out |= self._any({}, {"caCertificates": "/etc/certs/ca.pem"}, {"insecureSkipVerify": True})
        if mode != "DISABLE" and "insecureSkipVerify" not in out:
            out |= self._with(sni=(0.3, lambda: "sni.example.com"), subjectAltNames=(0.3, lambda: ["spiffe://x", "y.example"]))
        return out

    # -- Gateway, PeerAuthentication, ServiceEntry -----------------------------------------------------------------

    def _gateway(self, number: int) -> Json:
        servers = [self._server(index) for index in range(self._rng.randint(1, 3))]
        selector = {"istio": self._any("ingressgateway", "ingressgateway", "ingressgateway", "other")}
        return self._resource(
            NETWORKING, "Gateway", f"gw{number}", {"selector": selector, "servers": servers}, "istio-system" if number == 2 else "default"
        )

    def _server(self, index: int) -> Json:
        protocol = self._any("HTTP", "HTTP", "HTTP", "HTTPS", "TCP", "TLS")
        number = {"HTTP": self._any(80, 8080), "HTTPS": 443, "TCP": 31400, "TLS": self._any(443, 15443)}[protocol]
        port = {"number": number, "name": f"{protocol.lower()}-{index}", "protocol": protocol}
        server: Json = {"port": port, "hosts": self._some(SERVER_HOSTS, 2), **self._with(name=(0.1, lambda: f"s{index}"))}
        if protocol == "HTTP" and self._maybe(0.2):
            server["tls"] = {"httpsRedirect": True}
        if protocol in ("HTTPS", "TLS"):
            server["tls"] = dict(self._any(*SERVER_TLS))
        return server

    def _peer_authentication(self, number: int) -> Json:
        spec = self._with(mtls=(0.8, lambda: {"mode": self._any(*MTLS)}))
        if self._maybe(0.5):
            return self._resource(
                SECURITY, "PeerAuthentication", f"pa{number}", spec, self._any("default", "default", "istio-system", "other")
            )
        spec["selector"] = {"matchLabels": {"app": self._any("reviews", "httpbin", "store", "productpage", "multi", "multi")}}
        ports = [9080, 8000, 6000, 7777, 8080, 7000, 9000, 9443]
        spec |= self._with(portLevelMtls=(0.5, lambda: {port: {"mode": self._any(*MTLS)} for port in self._some(ports, 2)}))
        return self._resource(SECURITY, "PeerAuthentication", f"pa{number}", spec, "default")

    def _service_entry(self, number: int) -> Json:
        resolution = self._any("DNS", "STATIC", "NONE", "DNS")
        host = "*.example.org" if resolution == "NONE" and number == 0 and self._maybe(0.5) else OUTSIDE[number]
        if resolution == "STATIC" and self._maybe(0.5):
            host = "shared.example.com"
        protocol = self._any("HTTP", "HTTPS", "TCP", "TLS", "HTTP")
        first = {"HTTP": self._any(80, 9080), "HTTPS": 443, "TCP": self._any(6000, 5432), "TLS": 443}[protocol]
        name = f"p0-{protocol.lower()}"
        ports: list[Json] = [{"number": first, "name": name, "protocol": protocol}]
        ports += [{"number": 8081, "name": "http-more", "protocol": "HTTP"}] if self._maybe(0.3) else []
        spec: Json = {"hosts": [host], "ports": ports, "resolution": resolution}
        spec |= self._with(
            location=(0.6, lambda: self._any("MESH_EXTERNAL", "MESH_INTERNAL")), exportTo=(0.1, lambda: self._any(["."], ["*"]))
        )
        spec |= self._with(subjectAltNames=(0.2, lambda: self._some(["a.example", "spiffe://cluster.local/ns/default/sa/x"], 2)))
        if resolution == "STATIC" and self._maybe(0.3):
            spec["workloadSelector"] = {"labels": {"app": self._any("reviews", "multi", "nobody")}}
        elif resolution == "STATIC" or (resolution == "DNS" and self._maybe(0.4)):
            endpoint = self._with(ports=(0.3, lambda: {name: 8443}), weight=(0.2, lambda: 3), labels=(0.4, lambda: {"version": "v1"}))
            endpoint |= self._with(serviceAccount=(0.3, lambda: "there"))
            spec["endpoints"] = [{"address": "10.9.0.1" if resolution == "STATIC" else "eu.example.net", **endpoint}]
        if protocol == "TCP" or self._maybe(0.3):
            ranged = resolution in ("NONE", "STATIC") and self._maybe(0.3)
            spec["addresses"] = [f"240.{self._any(0, number)}.0.0/16" if ranged else f"240.0.0.{number + 1}"]
        return self._resource(NETWORKING, "ServiceEntry", f"se{number}", spec, "default")
