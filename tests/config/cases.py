"""Specs and what is said of them by themselves: path, then a part of the message; "" where Istio and we accept.

Kubernetes' API server and istiod give their verdict on every row too (test_analysis.py); where it differs the row says why.
"""

from dataclasses import dataclass

ROUTE = "route: [{destination: {host: reviews}}]"


@dataclass(frozen=True, slots=True)
class Case:
    """`http`, `policy`, ... are flow YAML; `differs` is why Istio's verdict is another one."""

    kind: str
    spec: str
    path: str = ""
    message: str = ""
    differs: str = ""
    metadata: str = ""

    def document(self, name: str = "reviews") -> str:
        metadata = f"name: {name}, {self.metadata}".rstrip(", ")
        group = "security" if self.kind == "PeerAuthentication" else "networking"
        return f"{{apiVersion: {group}.istio.io/v1, kind: {self.kind}, metadata: {{{metadata}}}, spec: {self.spec}}}\n"


def http(rule: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case("VirtualService", f"{{hosts: [reviews], http: [{{{rule}}}]}}", path and f"spec.http[0]{path}".rstrip("."), message, differs)


def routed(rule: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return http(f"{ROUTE}, {rule}", path, message, differs)


def service(spec: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case("VirtualService", spec, path, message, differs)


def policy(text: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case(
        "DestinationRule", f"{{host: reviews, trafficPolicy: {text}}}", path and f"spec.trafficPolicy{path}".rstrip("."), message, differs
    )


def rule(spec: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case("DestinationRule", spec, path, message, differs)


def server(text: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case(
        "Gateway",
        f"{{selector: {{istio: ingressgateway}}, servers: [{{{text}}}]}}",
        path and f"spec.servers[0]{path}".rstrip("."),
        message,
        differs,
    )


TWO = "[{destination: {host: a}, weight: %d}, {destination: {host: b}, weight: %d}]"
VIRTUAL_SERVICES = [
    routed("timeout: 1s"),
    http("route: " + TWO % (80, 20)),
    http("route: " + TWO % (1, 2)),
    http("route: " + TWO % (0, 0), ".route", "total destination weight = 0"),
    http("route: [{destination: {host: a}, weight: -1}]", ".route[0].weight", "weight -1 < 0"),
    http("route: [{weight: 1}]", ".route[0].destination", "destination is required"),
    http("route: [{destination: {host: '*'}}]", ".route[0].destination.host", "invalid destination host *"),
    http("route: [{destination: {host: a_b}}]", ".route[0].destination.host", 'label "a_b" invalid'),
    http("route: [{destination: {host: a.9}}]", ".route[0].destination.host", "cannot be all-numeric"),
    http("route: [{destination: {host: a, subset: v_1}}]", ".route[0].destination.subset", "subset name is invalid"),
    http("route: [{destination: {host: a, port: {number: 70000}}}]", ".route[0].destination.port.number", "in the range 1..65535"),
    http("name: nothing", ".", "HTTP route, redirect or direct_response is required"),
    routed("redirect: {uri: /}", ".route", "cannot contain both route and redirect"),
    http("redirect: {uri: /}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}", ".fault", "both fault and redirect"),
    http("redirect: {uri: /}, rewrite: {uri: /}", ".rewrite", "both rewrite and redirect"),
    http("redirect: {uri: /}, directResponse: {status: 200}", ".directResponse", "both directResponse and redirect"),
    routed("directResponse: {status: 200}", ".route", "both route and directResponse"),
    http("directResponse: {status: 200, body: {string: hi}}"),
    http("directResponse: {status: 199}", ".directResponse.status", "HTTP status 199 is not in range 200-599"),
    http(
        "directResponse: {status: 600}", ".directResponse.status", "not in range 200-599", "istiod lets 600 pass and Envoy then refuses it"
    ),
    http("redirect: {redirectCode: 301}", ".redirect", "redirect must specify URI, authority, scheme, or port"),
    http("redirect: {uri: /, redirectCode: 200}", ".redirect.redirectCode", "must be 3xx"),
    http("redirect: {uri: /, prefixRewrite: /}", ".redirect", "only specify one of uri or prefix_rewrite"),
    http("match: [{uri: {exact: /}}], redirect: {prefixRewrite: /}", ".redirect.prefixRewrite", "to use prefix match type"),
    http("redirect: {scheme: ftp}", ".redirect.scheme", 'must be "http" or "https"'),
    http("redirect: {port: 99999}", ".redirect.port", "in the range 1..65535"),
    http("redirect: {derivePort: FROM_REQUEST_PORT}"),
    routed("fault: {}", ".fault", "must have an abort and/or a delay"),
    routed("fault: {abort: {httpStatus: 503, percentage: {value: 100}}, delay: {fixedDelay: 1s, percentage: {value: 0.1}}}"),
    routed("fault: {abort: {httpStatus: 199, percentage: {value: 1}}}", ".fault.abort.httpStatus", "HTTP status 199"),
    routed("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}", ".fault.abort.percentage.value", "percentage 101"),
    routed("fault: {delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}", ".fault.delay.percentage.value", "[0.0001, 100.0]"),
    routed("fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}}", ".fault.abort.grpcStatus", 'gRPC status "NOPE" is not supported'),
    routed("fault: {abort: {http2Error: X, percentage: {value: 1}}}", ".fault.abort.http2Error", "not supported yet"),
    routed("fault: {delay: {exponentialDelay: 1s, percentage: {value: 1}}}", ".fault.delay.exponentialDelay", "not supported yet"),
    routed("retries: {attempts: 3, retryOn: '5xx,reset,503', perTryTimeout: 2s}"),
    routed("retries: {attempts: -1}", ".retries.attempts", "attempts cannot be negative"),
    routed("retries: {retryOn: 5xx}", ".retries", "when attempts are set to 0"),
    routed("retries: {attempts: 1, retryOn: 'conect-failure'}", ".retries.retryOn", '"conect-failure" is not a valid retryOn policy'),
    routed("retries: {attempts: 1, retryOn: '5xx, reset'}", ".retries.retryOn", '" reset" is not a valid retryOn policy'),
    routed("rewrite: {uri: /}"),
    routed("rewrite: {}", ".rewrite", "must specify at least one of URI"),
    routed("rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}", ".rewrite", "only contain one of URI or UriRegexRewrite"),
    routed("rewrite: {uriRegexRewrite: {match: a}}", ".rewrite.uriRegexRewrite", "requires both Rewrite and Match"),
    routed("rewrite: {uriRegexRewrite: {match: '(', rewrite: b}}", ".rewrite.uriRegexRewrite.match", "missing )"),
    routed("rewrite: {authority: a}, headers: {request: {set: {Host: b}}}", ".rewrite", "authority header cannot be set multiple times"),
    routed("match: [{uri: {regex: 'a(?=b)'}}]", ".match[0].uri.regex", "RE2 style"),
    routed("match: [{uri: {regex: ''}}]", ".match[0].uri.regex", "should not be empty"),
    routed("match: [{uri: {prefix: ''}}]"),
    routed("match: [{method: {prefix: ''}}]", ".match[0].method.prefix", "should not be empty"),
    routed("match: [{headers: {a b: {exact: x}}}]", ".match[0].headers.a b", "is not a valid header name"),
    routed("match: [{headers: {':authority': {exact: x}}}]"),
    routed("match: [{withoutHeaders: {x: {regex: '*'}}}]"),
    routed("match: [{headers: {x: {regex: '*'}}}]", ".match[0].headers.x.regex", "RE2 style"),
    routed("match: [{queryParams: {x: {prefix: ''}}}]", ".match[0].queryParams.x.prefix", "should not be empty"),
    routed("match: [{port: 70000}]", ".match[0].port", "in the range 1..65535"),
    routed("match: [{sourceLabels: {a: 'b c'}}]", ".match[0].sourceLabels.a", 'invalid label value "b c"'),
    routed("match: [{sourceNamespace: a.b}]", ".match[0].sourceNamespace", "is invalid"),
    routed("match: [{gateways: [a/b/c]}]", ".match[0].gateways[0]", "is no gateway name"),
    routed("headers: {request: {set: {':path': x}}}", ".headers.request.set.:path", 'cannot have ":" prefix'),
    routed("headers: {request: {set: {':authority': x}}}"),
    routed("headers: {response: {add: {host: x}}}", ".headers.response.add.host", "cannot set Host header"),
    routed("headers: {request: {set: {x: '100%'}}}", ".headers.request.set.x", "is invalid"),
    routed("headers: {request: {set: {x: '100%% %START_TIME(%s)% %HOSTNAME%'}}}"),
    http("route: [{destination: {host: a}, headers: {response: {remove: [':x']}}}]", ".route[0].headers.response.remove[0]", "prefix"),
    routed("corsPolicy: {allowOrigins: [{exact: 'http://a'}], allowMethods: [GET], maxAge: 24h}"),
    routed("corsPolicy: {allowOrigins: [{}]}", ".corsPolicy.allowOrigins[0]", "not a valid match type"),
    routed("corsPolicy: {allowMethods: [get]}", ".corsPolicy.allowMethods[0]", "not a supported HTTP method"),
    routed("corsPolicy: {allowHeaders: ['a b']}", ".corsPolicy.allowHeaders[0]", "not a valid header name"),
    routed("corsPolicy: {maxAge: 1.5s}", ".corsPolicy.maxAge", "seconds precision"),
    routed("mirror: {host: a}, mirrors: [{destination: {host: b}}]", ".mirrors", "both mirror and mirrors"),
    routed("mirror: {host: a}, mirrorPercentage: {value: 101}", ".mirrorPercentage.value", "not in range 0..100"),
    routed("mirror: {host: a}, mirrorPercent: 101", ".mirrorPercent", "max value of 100"),
    routed("mirrors: [{percentage: {value: 1}}]", ".mirrors[0].destination", "destination is required"),
    routed("delegate: {name: a}", ".route", "must not specify route"),
    http("delegate: {name: a}"),
    service("{http: [{delegate: {name: a}}]}", "spec.http[0].delegate", "delegate HTTP route cannot contain delegate"),
    service(f"{{gateways: [a], http: [{{{ROUTE}}}]}}", "spec.gateways", "must have no gateways"),
    service("{hosts: [a]}", "spec", "http, tcp or tls must be provided"),
    service(f"{{hosts: ['*'], http: [{{{ROUTE}}}]}}", "spec.hosts[0]", "wildcard host * is not allowed"),
    service(f"{{hosts: ['*'], gateways: [g], http: [{{{ROUTE}}}]}}"),
    service(f"{{hosts: [a.com, '*.com'], http: [{{{ROUTE}}}]}}", "spec.hosts[1]", "duplicate hosts"),
    service(f"{{hosts: [10.1.2.3], http: [{{{ROUTE}}}]}}"),
    service(f"{{hosts: [a..b], http: [{{{ROUTE}}}]}}", "spec.hosts[0]", 'label "" invalid'),
    service(f"{{hosts: [a], exportTo: ['.', '*'], http: [{{{ROUTE}}}]}}", "spec.exportTo", "both public"),
    service(f"{{hosts: [a], exportTo: [default, '.'], http: [{{{ROUTE}}}]}}", "spec.exportTo[1]", "duplicate entries"),
    service(f"{{hosts: [a], gateways: [ns/], http: [{{{ROUTE}}}]}}", "spec.gateways[0]", "is no gateway name"),
    service(f"{{hosts: [a], tcp: [{{{ROUTE}}}]}}"),
    service("{hosts: [a], tcp: [{match: [{port: 1}]}]}", "spec.tcp[0]", "route is required"),
    service(f"{{hosts: [a], tls: [{{{ROUTE}}}]}}", "spec.tls[0]", "at least one match condition"),
    service(
        f"{{hosts: [a.com], tls: [{{match: [{{sniHosts: [b.com]}}], {ROUTE}}}]}}", "spec.tls[0].match[0].sniHosts[0]", "compatible subset"
    ),
]
DESTINATION_RULES = [
    rule("{host: reviews}"),
    rule("{host: ''}", "spec.host", "empty domain name"),
    rule("{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1].name", "duplicate subset names"),
    rule("{host: a, subsets: [{labels: {a: b}}]}", "spec.subsets[0].name", "subset name cannot be empty"),
    rule("{host: a, subsets: [{name: a.b}]}", "spec.subsets[0].name", "subset name is invalid"),
    rule("{host: a, subsets: [{name: a, labels: {'a b': c}}]}", "spec.subsets[0].labels.a b", "invalid label name"),
    rule("{host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: [other]}", "spec.exportTo", "beyond current namespace"),
    rule(
        "{host: a, workloadSelector: {matchLabels: {a: b}}, trafficPolicy: {tls: {mode: SIMPLE, credentialName: c}}}",
        "spec.trafficPolicy.tls.credentialName",
        "would not be encrypted",
        differs="Istio serves Secrets to sidecars that a rule selects",
    ),
    policy("{}", ".", "traffic policy must have at least one field"),
    policy("{connectionPool: {}}", ".connectionPool", "at least one field"),
    policy("{connectionPool: {http: {http1MaxPendingRequests: -1}}}", ".connectionPool.http.http1MaxPendingRequests", "non-negative"),
    policy(
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
        ".connectionPool.http.useClientProtocol",
        "must not be true",
    ),
    policy("{connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}", ".connectionPool.http.http2KeepAlive", "are required"),
    policy("{connectionPool: {tcp: {maxConnections: -1}}}", ".connectionPool.tcp.maxConnections", "non-negative"),
    policy("{connectionPool: {tcp: {idleTimeout: 0s}}}"),
    policy("{outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 101}}", ".outlierDetection.maxEjectionPercent", "0..100"),
    policy("{outlierDetection: {consecutiveLocalOriginFailures: 1}}", ".outlierDetection.consecutiveLocalOriginFailures", "local origin"),
    policy("{outlierDetection: {consecutiveErrors: 1}}"),
    policy("{loadBalancer: {simple: LEAST_REQUEST}}"),
    policy("{loadBalancer: {consistentHash: {httpCookie: {ttl: 0s}}}}", ".loadBalancer.consistentHash.httpCookie", "name required"),
    policy(
        "{loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{name: b}, {name: b}]}}}}",
        ".loadBalancer.consistentHash.httpCookie.attributes",
        "given twice",
    ),
    policy(
        "{loadBalancer: {consistentHash: {httpHeaderName: a, maglev: {tableSize: 4}}}}",
        ".loadBalancer.consistentHash.maglev.tableSize",
        "prime",
    ),
    policy("{loadBalancer: {consistentHash: {httpHeaderName: a, maglev: {tableSize: 65537}}}}"),
    policy(
        "{loadBalancer: {consistentHash: {httpHeaderName: a, minimumRingSize: 1, ringHash: {minimumRingSize: 2}}}}",
        ".loadBalancer.consistentHash",
        "only one of MinimumRingSize",
    ),
    policy(
        "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}}}",
        ".loadBalancer.localityLbSetting.distribute[0].to",
        "!= 100",
    ),
    policy("{loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {}}}", ".loadBalancer", "only one of localityLbSetting"),
    policy("{loadBalancer: {simple: RANDOM, warmup: {}}}", ".loadBalancer.warmup", "duration is required"),
    policy("{loadBalancer: {simple: RANDOM, warmup: {duration: 1s, aggression: 0}}}", ".loadBalancer.warmup.aggression", "greater than 0"),
    policy("{tls: {mode: MUTUAL}}", ".tls", "client certificate required"),
    policy("{tls: {mode: SIMPLE, credentialName: a, caCertificates: b}}", ".tls", "If credentialName is set"),
    policy("{tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: b}}", ".tls", "InsecureSkipVerify"),
    policy("{portLevelSettings: [{port: {number: 80}}]}", ".portLevelSettings[0]", "at least one field"),
    policy("{portLevelSettings: [{loadBalancer: {simple: RANDOM}}]}", ".portLevelSettings[0]", "must have valid port"),
    policy("{tunnel: {targetHost: a.com, targetPort: 80}, proxyProtocol: {}}", ".", "must not be set together"),
    policy(
        "{tunnel: {protocol: POST, targetHost: a.com, targetPort: 80}}",
        ".tunnel.protocol",
        "by POST are not supported",
        differs="Envoy can tunnel by POST",
    ),
    policy("{tunnel: {protocol: CONNECT, targetHost: a.com, targetPort: 80}}"),
    policy("{tunnel: {protocol: GET, targetHost: a.com, targetPort: 80}}", ".tunnel.protocol", 'must be "CONNECT" or "POST"'),
]
PORT = "port: {number: 80, name: http, protocol: HTTP}"
GATEWAYS = [
    server(f"{PORT}, hosts: ['*']"),
    server(f"{PORT}, hosts: [reviews]", ".hosts[0]", "short names"),
    server(f"{PORT}", ".", "at least one host"),
    server("hosts: ['*']", ".", "port is required"),
    server("port: {number: 80, name: http, protocol: HTTTP}, hosts: ['*']", ".port.protocol", "invalid protocol"),
    server("port: {number: 80, protocol: HTTP}, hosts: ['*']", ".port", "port name must be set"),
    server("port: {number: 0, name: http, protocol: HTTP}, hosts: ['*']", ".port.number", "1..65535"),
    server("port: {number: 80, name: http, protocol: HTTP, targetPort: 1}, hosts: ['*']", ".port.targetPort", "no impact"),
    server("port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*']", ".", "must have TLS settings"),
    server(f"{PORT}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: a}}", ".tls", "cannot have TLS settings for plain text"),
    server(f"{PORT}, hosts: ['*'], tls: {{httpsRedirect: true}}"),
    server("port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}", ".tls", "requires a server certificate"),
    server("port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: MUTUAL, credentialName: a}"),
    server(
        "port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: ISTIO_MUTUAL, credentialName: a}",
        ".tls",
        "ISTIO_MUTUAL",
    ),
    server(f"{PORT}, hosts: ['*foo.com']", ".hosts[0]", "partial wildcard"),
    server(f"{PORT}, hosts: ['a_b/x.com']", ".hosts[0]", "invalid namespace value"),
    server(f"{PORT}, hosts: ['./x.com', '*/y.com', 'ns/z.com']"),
    server(f"{PORT}, hosts: ['*'], bind: nowhere", ".bind", "not a valid IP"),
    Case("Gateway", "{servers: []}", "spec.servers", "at least one server"),
    Case("Gateway", f"{{servers: [{{{PORT}, hosts: ['*']}}, {{{PORT}, hosts: [a.com]}}]}}", "spec.servers[1].port.name", "unique"),
]
ALL = [*VIRTUAL_SERVICES, *DESTINATION_RULES, *GATEWAYS]
