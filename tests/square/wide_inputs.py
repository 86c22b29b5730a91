"""More random Istio YAML by seed: the fields and combinations that `random_inputs` leaves out, over a topology in which ports and labels meet."""

from __future__ import annotations

from typing import Any

from tests.square.random_inputs import DURATIONS, NETWORKING, SECURITY, Inputs, Json

SERVICES = (
    "productpage", "reviews", "reviews", "httpbin", "multi", "admin", "shadow", "sniffed", "front", "secure", "mongo", "nobody",
    "reviews.other.svc.cluster.local", "legacy.other.svc.cluster.local", "legacy", "far.other.svc.cluster.local", "far.other",
)  # fmt: skip
PORTS = (9080, 9080, 9080, 80, 443, 6000, 8000, 9090, 9091, 7000, 8080, 9000, 9444, 50051, 50052, 27017, 8443, 9081)
OUTSIDE = ("api.example.com", "db.example.com", "nowhere.example.com", "x.example.org", "a.wild.example.net")
NAMESPACES = ("default", "istio-system", "other")
EXPORTS = (["."], ["*"], ["default"], ["other"], [".", "istio-system"], ["default", "istio-system"], ["istio-system"])
GATEWAYS = ("mesh", "gw1", "gw2", "default/gw1", "istio-system/gw2", "other/gw3", "gw3")
GATEWAY_HOSTS = (
    "*",
    "a.example.com",
    "b.example.com",
    "*.example.com",
    "*.com",
    "reviews.default.svc.cluster.local",
    "reviews.example.com",
)
LABELS = (
    {"app": "productpage"}, {"app": "reviews"}, {"version": "v1"}, {"app": "httpbin", "version": "v1"}, {"app": "reviews", "version": "v2"}, {},
    {"istio": "ingressgateway"},
)  # fmt: skip
CREDENTIALS: tuple[Json, ...] = (
    {"serverCertificate": "/etc/c.pem", "privateKey": "/etc/k.pem"},
    {"credentialName": "shop"},
    {"credentialNames": ["shop", "shop-ecdsa"]},
    {"tlsCertificates": [{"serverCertificate": "/c1", "privateKey": "/k1"}, {"serverCertificate": "/c2", "privateKey": "/k2"}]},
)


TUNNEL = {"tunnel": {"protocol": "CONNECT", "targetHost": "t.example.com", "targetPort": 8443}}


class Wide(Inputs):
    """One seed's resources."""

    def documents(self) -> list[Json]:
        return [
            *(one for number in range(self._any(1, 2, 3, 4)) for one in self._services(number)),
            *(self._destination_rule(number) for number in range(self._any(0, 1, 2, 4))),
            *(self._gateway(number) for number in range(1, 1 + self._any(0, 1, 2, 3))),
            *(self._peer_authentication(number) for number in range(self._any(0, 0, 1, 3))),
            *(self._service_entry(number) for number in range(self._any(0, 1, 2, 3))),
        ]

    def mesh_config(self) -> Json:
        return self._with(
            outboundTrafficPolicy=(0.3, lambda: {"mode": self._any("REGISTRY_ONLY", "ALLOW_ANY")}),
            connectTimeout=(0.1, lambda: "3s"),
            defaultHttpRetryPolicy=(0.2, self._retries),
            accessLogFile=(0.2, lambda: "/dev/stdout"),
            enableTracing=(0.1, lambda: False),
        )

    def _host(self, outside: float = 0.15) -> str:
        return str(self._any(*OUTSIDE) if self._maybe(outside) else self._any(*SERVICES))

    def _namespace(self) -> str:
        return str(self._any("default", "default", "default", "default", "istio-system", "other"))

    # -- VirtualService --------------------------------------------------------------------------------------------

    def _services(self, number: int) -> list[Json]:
        """A VirtualService, and what it delegates to."""
        root = self._virtual_service(number)
        if "http" not in root["spec"] or not self._maybe(0.25):
            return [root]
        delegates = []
        for index, route in enumerate(root["spec"]["http"]):
            if not self._maybe(0.5):
                continue
            name, namespace = f"d{number}-{index}", self._namespace()
            for action in ("route", "redirect", "directResponse", "rewrite", "retries", "mirror", "mirrors", "mirrorPercentage", "fault"):
                if action in ("route", "redirect", "directResponse") or self._maybe(0.5):
                    route.pop(action, None)
            route["delegate"] = {"name": name, **({"namespace": namespace} if namespace != root["metadata"]["namespace"] else {})}
            spec: Json = {"http": [self._http_route() for _ in range(self._rng.randint(1, 3))]}
            if self._maybe(0.2):
                spec["exportTo"] = self._export_to(namespace)
            delegates.append(self._resource(NETWORKING, "VirtualService", name, spec, namespace))
        return [root, *delegates]

    def _virtual_service(self, number: int) -> Json:
        spec: Json = {"hosts": list(dict.fromkeys(self._host(0.2) for _ in range(self._any(1, 1, 2, 3))))}
        wild = self._rng.random()
        if wild < 0.08:
            spec["hosts"] = [
                self._any("*.default.svc.cluster.local", "*.svc.cluster.local", "*.example.com", "*.wild.example.net", "*.com")
            ]
        namespace = self._namespace()
        if self._maybe(0.5):
            spec["gateways"] = self._gateways(namespace)
            if self._maybe(0.6):
                spec["hosts"] = self._apart(self._some(GATEWAY_HOSTS[1:], 2))
            if "mesh" not in spec["gateways"] and self._maybe(0.2):
                spec["hosts"] = ["*"]
        kind = self._rng.random()
        if kind < 0.75:
            spec["http"] = [self._http_route() for _ in range(self._rng.randint(1, 4))]
        if kind > 0.65:
            spec["tcp"] = [self._tcp_route() for _ in range(self._rng.randint(1, 3))]
        if kind > 0.8:
            spec["tls"] = [
                self._tls_route([host for host in spec["hosts"] if host != "*"] or ["x.example.org"]) for _ in range(self._any(1, 2))
            ]
        spec |= self._with(exportTo=(0.25, lambda: self._export_to(namespace)))
        return self._resource(NETWORKING, "VirtualService", f"vs{number}", spec, namespace)

    def _gateways(self, namespace: str) -> list[str]:
        """Each once: of one named twice istiod lists the routes twice (docs/differences.md)."""
        named = {name if "/" in name or name == "mesh" else f"{namespace}/{name}": name for name in self._some(GATEWAYS, 3)}
        return list(named.values())

    def _export_to(self, namespace: str) -> list[str]:
        """Istio refuses "." beside the namespace that it means."""
        return [one for one in self._any(*EXPORTS) if one != namespace] or ["."]

    @staticmethod
    def _apart(hosts: list[str]) -> list[str]:
        """Without those that a wildcard among them covers, which Istio refuses in one resource."""
        wild = [one[1:] for one in hosts if one.startswith("*")]
        return [one for one in hosts if not any(one.lstrip("*").endswith(end) and one != f"*{end}" for end in wild)]

    def _match(self) -> Json:
        return {
            **super()._match(),
            **self._with(
                statPrefix=(0.1, lambda: "stat"),
                port=(0.15, lambda: self._any(*PORTS)),
                sourceLabels=(0.15, lambda: dict(self._any(*LABELS))),
                gateways=(0.2, lambda: self._some(GATEWAYS, 2)),
            ),
        }

    def _headers(self) -> Json:
        out = super()._headers()
        if self._maybe(0.15):
            out.setdefault("request", {}).setdefault(self._any("set", "add"), {})[self._any("Host", ":authority", "host")] = (
                "rewritten.example"
            )
        return out

    def _redirect(self) -> Json:
        out = super()._redirect()
        if self._maybe(0.15):
            out.pop("uri", None)
            out["authority"] = "elsewhere.example"
        return out

    def _retries(self) -> Json:
        out = super()._retries()
        return {**out, **self._with(retryRemoteLocalities=(0.2, lambda: self._any(True, False)))} if out["attempts"] else out

    def _cors(self) -> Json:
        out = super()._cors()
        return {**out, "allowOrigin": ["http://old.example"]} if self._maybe(0.1) else out

    def _fault(self) -> Json:
        out = super()._fault()
        if "delay" in out and self._maybe(0.1):
            out["delay"]["percent"] = self._any(1, 50)
        return out

    def _forward(self) -> Json:
        out = super()._forward()
        out.get("rewrite", {}).pop("authority", None)  # Istio refuses it beside a Host among the headers
        if out.get("rewrite") == {}:
            del out["rewrite"]
        if "mirror" in out and self._maybe(0.2):
            out["mirrorPercent"] = self._any(0, 1, 100)
        return out

    def _destination(self) -> Json:
        return {
            "host": self._host(),
            **self._with(subset=(0.4, lambda: self._any("v1", "v2", "v3", "gone")), port=(0.4, lambda: {"number": self._any(*PORTS)})),
        }

    def _l4(self) -> Json:
        return self._with(
            port=(0.6, lambda: self._any(*PORTS, 31400, 15443)),
            sourceLabels=(0.25, lambda: dict(self._any(*LABELS))),
            gateways=(0.3, lambda: self._some(GATEWAYS, 2)),
            sourceNamespace=(0.15, lambda: self._any(*NAMESPACES)),
        )

    def _tcp_route(self) -> Json:
        matches = [one for one in (self._l4() for _ in range(self._any(1, 1, 2))) if one]
        return {"route": self._below_http(), **({"match": matches} if matches and self._maybe(0.7) else {})}

    def _tls_route(self, hosts: list[str]) -> Json:
        matches = []
        for _ in range(self._any(1, 1, 2)):
            host = self._any(*hosts)
            names = [host.replace("*.", "deep.") if host.startswith("*.") and self._maybe(0.5) else host]
            matches.append({"sniHosts": names if self._maybe(0.6) else hosts, **self._l4()})
        return {"match": matches, "route": self._below_http()}

    def _below_http(self) -> list[Json]:
        number = self._any(1, 1, 2, 3)
        return [
            {
                "destination": {
                    "host": self._host(0.3),
                    **self._with(port=(0.6, lambda: {"number": self._any(*PORTS)}), subset=(0.3, lambda: self._any("v1", "v2"))),
                },
                **({"weight": self._any(10, 50, 90)} if number > 1 else {}),
            }
            for _ in range(number)
        ]

    # -- DestinationRule -------------------------------------------------------------------------------------------

    def _destination_rule(self, number: int) -> Json:
        wild = ("*.default.svc.cluster.local", "*.example.com", "*.svc.cluster.local", "*.local", "*.wild.example.net", "*")
        spec: Json = {"host": self._any(*wild) if self._maybe(0.15) else self._host(0.2), **self._with(trafficPolicy=(0.8, self._policy))}
        subsets = [self._subset(name) for name in ("v1", "v2", "v3") if self._maybe(0.5)]
        spec |= {"subsets": subsets} if subsets else {}
        namespace = self._namespace()
        spec |= self._with(exportTo=(0.2, lambda: self._export_to(namespace)))
        if "exportTo" not in spec and self._maybe(0.2):
            spec["workloadSelector"] = {"matchLabels": self._any({"app": "httpbin"}, {"app": "productpage"}, {"version": "v1"})}
        return self._resource(NETWORKING, "DestinationRule", f"dr{number}", spec, namespace)

    def _policy(self) -> Json:
        return {
            **super()._policy(),
            **self._with(
                retryBudget=(0.1, lambda: self._with(
                    percent=(0.7, lambda: self._any(0, 10, 33.3)), minRetryConcurrency=(0.7, lambda: self._any(0, 5)), budgetInterval=(0.5, lambda: self._any("0s", "2s")),
                )),
            ),
            **self._any(*[{}] * 10, {"proxyProtocol": {"version": "V2"}}, {"proxyProtocol": {"version": "V1"}}, dict(TUNNEL)),
        }  # fmt: skip

    def _balancer(self) -> Json:
        out = super()._balancer()
        if self._maybe(0.25):
            warm = self._with(minimumPercent=(0.5, lambda: self._any(0, 5, 100)), aggression=(0.5, lambda: self._any(1, 2.5)))
            out |= self._any({"warmupDurationSecs": "30s"}, {"warmup": {"duration": self._any(*DURATIONS[1:3]), **warm}})
        if "httpCookie" in out.get("consistentHash", {}) and self._maybe(0.3):
            cookie = dict(out["consistentHash"]["httpCookie"])
            out["consistentHash"] = {
                **out["consistentHash"],
                "httpCookie": cookie | {"attributes": [{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]},
            }
        return out

    def _pool(self) -> Json:
        out = super()._pool()
        if "http" in out:
            out["http"] |= self._with(
                useClientProtocol=(0.1, lambda: True),
                maxConcurrentStreams=(0.15, lambda: self._any(1, 100)),
                http2KeepAlive=(0.1, lambda: {"interval": "30s", "timeout": "5s"}),
                h2UpgradePolicy=(0.1, lambda: self._any("DO_NOT_UPGRADE", "DEFAULT")),
            )
        return out

    def _outlier(self) -> Json:
        out = super()._outlier()
        return {**out, "consecutiveErrors": 4} if self._maybe(0.1) else out

    # -- Gateway, PeerAuthentication, ServiceEntry -----------------------------------------------------------------

    def _gateway(self, number: int) -> Json:
        servers = [self._server(index) for index in range(self._rng.randint(1, 4))]
        spec: Json = {
            "servers": servers,
            "selector": self._any({"istio": "ingressgateway"}, {"istio": "ingressgateway"}, {"istio": "other"}),
        }
        return self._resource(NETWORKING, "Gateway", f"gw{number}", spec, ("default", "istio-system", "other")[number - 1])

    def _server(self, index: int) -> Json:
        protocol = self._any("HTTP", "HTTP", "HTTP2", "GRPC", "HTTPS", "HTTPS", "TCP", "TLS", "MONGO")
        numbers = {"HTTPS": (443, 443, 8443), "TCP": (31400, 443, 9000), "TLS": (443, 15443, 31400), "MONGO": (31400, 27017)}
        port = {
            "number": self._any(*numbers.get(protocol, (80, 80, 8080, 8081))),
            "name": f"{protocol.lower()}-{index}",
            "protocol": protocol,
        }
        if self._maybe(0.1):
            port["name"] = f"Same-{protocol.lower()}"
        hosts = [f"{self._any('', '', '', './', '*/', 'default/', 'other/')}{host}" for host in self._some(GATEWAY_HOSTS, 3)]
        if "*/*" in hosts:  # istiod fails on another namespace's name behind it
            hosts = ["*/*"]
        server: Json = {"port": port, "hosts": hosts, **self._with(name=(0.15, lambda: f"s{index}"))}
        if protocol in ("HTTP", "HTTP2", "GRPC") and self._maybe(0.25):
            server["tls"] = {"httpsRedirect": True}
        if protocol in ("HTTPS", "TLS"):
            server["tls"] = self._server_tls(protocol)
        return server

    def _server_tls(self, protocol: str) -> Json:
        mode = self._any("SIMPLE", "SIMPLE", "MUTUAL", "PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL")
        out: Json = {"mode": mode}
        if mode in ("PASSTHROUGH", "ISTIO_MUTUAL"):
            return out
        out |= self._any(*CREDENTIALS)
        if mode != "SIMPLE":
            named = "credentialName" in out or "credentialNames" in out
            out |= self._any({}, {"caCertCredentialName": "roots"}) if named else {"caCertificates": "/etc/ca.pem"}
            out |= self._with(subjectAltNames=(0.3, lambda: ["spiffe://x", "client.example"]))
        return out | self._with(
            minProtocolVersion=(0.2, lambda: self._any("TLSV1_2", "TLSV1_3", "TLS_AUTO", "TLSV1_0")),
            maxProtocolVersion=(0.2, lambda: self._any("TLSV1_3", "TLS_AUTO")),
            cipherSuites=(0.2, lambda: ["ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA"]),
            verifyCertificateSpki=(0.1, lambda: ["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="]),
            insecureSkipVerify=(0.1, lambda: True),
            httpsRedirect=(0.1 if protocol == "HTTPS" else 0, lambda: True),
        )

    def _peer_authentication(self, number: int) -> Json:
        spec = self._with(mtls=(0.8, lambda: {"mode": self._any("STRICT", "PERMISSIVE", "DISABLE", "UNSET")}))
        namespace = self._namespace()
        if self._maybe(0.6):
            spec["selector"] = {
                "matchLabels": self._any({"app": "reviews"}, {"app": "httpbin"}, {"app": "store"}, {"version": "v1"}, {"app": "multi"}, {})
            }
            if spec["selector"]["matchLabels"]:
                ports = [9080, 8000, 6000, 7777, 8080, 7000, 9000, 9443, 6080, 9091]
                modes = ("STRICT", "PERMISSIVE", "DISABLE", "UNSET")
                spec |= self._with(portLevelMtls=(0.5, lambda: {port: {"mode": self._any(*modes)} for port in self._some(ports, 3)}))
        return self._resource(SECURITY, "PeerAuthentication", f"pa{number}", spec, namespace)

    def _service_entry(self, number: int) -> Json:
        resolution = self._any("DNS", "STATIC", "NONE", "DNS", "DNS_ROUND_ROBIN")
        hosts: list[str] = [OUTSIDE[number]]
        if resolution == "NONE" and self._maybe(0.3) and number == 0:
            hosts = ["*.wild.example.net"]
        elif self._maybe(0.1):
            hosts = [f"extra{number}.default.svc.cluster.local"]
        ports = self._entry_ports()
        below_http = any(one["protocol"] in ("TCP", "MONGO") for one in ports)
        if not below_http and resolution != "DNS_ROUND_ROBIN" and self._maybe(0.3):
            hosts.append(f"second{number}.example.com")
        spec: Json = {"hosts": hosts, "ports": ports, "resolution": resolution}
        namespace = self._namespace()
        spec |= self._with(
            location=(0.6, lambda: self._any("MESH_EXTERNAL", "MESH_INTERNAL")), exportTo=(0.2, lambda: self._export_to(namespace))
        )
        if resolution == "STATIC" or (resolution != "NONE" and self._maybe(0.5)):
            spec["endpoints"] = [
                self._endpoint(resolution, index, ports) for index in range(1 if resolution == "DNS_ROUND_ROBIN" else self._any(1, 2, 3))
            ]
        if below_http or (len(hosts) == 1 and self._maybe(0.4)):  # whose route has the address of two, istiod tells by chance
            spec["addresses"] = [f"240.0.0.{number + 1}"]
        return self._resource(NETWORKING, "ServiceEntry", f"se{number}", spec, namespace)

    def _entry_ports(self) -> list[Json]:
        known: dict[int, Json] = {}
        for index in range(self._any(1, 1, 2, 3)):
            protocol = self._any("HTTP", "HTTPS", "TCP", "TLS", "HTTP2", "GRPC", "http", "MONGO", "HTTP_PROXY")
            number = self._any(80, 443, 9080, 6000, 8443, 27017)
            port: dict[str, Any] = {"number": number, "name": f"p{index}-{protocol.lower()}".replace("_", "-"), "protocol": protocol}
            known.setdefault(number, port | self._with(targetPort=(0.2, lambda: self._any(8080, 9443))))
        return list(known.values())

    def _endpoint(self, resolution: str, index: int, ports: list[Json]) -> Json:
        return {
            "address": f"10.9.0.{index + 1}" if resolution == "STATIC" else self._any(f"e{index}.example.net", f"10.9.1.{index + 1}"),
            **self._with(
                ports=(0.3, lambda: {self._any(*ports)["name"]: 8443}),
                weight=(0.3, lambda: self._any(1, 3, 7)),
                labels=(0.5, lambda: self._any({"version": "v1"}, {"version": "v2", "app": "x"})),
            ),
        }
