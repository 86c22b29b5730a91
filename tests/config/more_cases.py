"""More specs and what is said of them: ServiceEntry, PeerAuthentication, localities, and what random inputs found (see cases.py)."""

from tests.config.cases import PORT, ROUTE, Case, http, policy, routed, rule, server, service


def entry(spec: str, path: str = "", message: str = "", differs: str = "") -> Case:
    return Case("ServiceEntry", f"{{{spec}}}", path, message, differs)


WEB = "ports: [{number: 80, name: http, protocol: HTTP}]"
STATIC = "resolution: STATIC, endpoints: [{address: 10.0.0.1}]"
LONG = "x" * 64
SERVICE_ENTRIES = [
    entry(f"hosts: [a.example], {WEB}, resolution: DNS"),
    entry(f"hosts: [a.example, b.example], {WEB}, {STATIC}"),
    entry(f"hosts: ['*.example'], {WEB}, resolution: NONE"),
    entry(f"hosts: [a.example], addresses: [10.7.0.1], {WEB}, {STATIC}, exportTo: ['.']"),
    entry(f"{WEB}, resolution: DNS", "spec.hosts", "at least one host"),
    entry(f"hosts: ['*'], {WEB}", "spec.hosts[0]", "invalid host *"),
    entry(f"hosts: [10.7.0.1], {WEB}", "spec.hosts[0]", "cannot be all-numeric"),
    entry("hosts: [a.example], resolution: DNS"),
    entry("hosts: [a.example], ports: [{number: 0, name: a, protocol: HTTP}]", "spec.ports[0].number", "in the range 1..65535"),
    entry("hosts: [a.example], ports: [{number: 80, name: a, targetPort: 0}]", "spec.ports[0].targetPort", "in the range 1..65535"),
    entry("hosts: [a.example], ports: [{number: 80, name: a_b}]", "spec.ports[0].name", "invalid port name"),
    entry("hosts: [a.example], ports: [{number: 80, name: a, protocol: HTP}]", "spec.ports[0].protocol", 'unsupported protocol "HTP"'),
    entry("hosts: [a.example], ports: [{number: 80, name: a, protocol: udp}]"),
    entry("hosts: [a.example], ports: [{number: 80, name: a}, {number: 80, name: b}]", "spec.ports[1].number", "already defined"),
    entry("hosts: [a.example], ports: [{number: 80, name: a}, {number: 81, name: a}]", "spec.ports[1].name", "already defined"),
    entry(f"hosts: [a.x, b.x], ports: [{{number: 1, name: a, protocol: TCP}}], {STATIC}", "spec.ports[0].protocol", "multiple hosts"),
    entry("hosts: [a.x, b.x], ports: [{number: 1, name: a, protocol: TCP}]"),
    entry("hosts: [a.x, b.x], addresses: [10.7.0.1], ports: [{number: 1, name: a}], resolution: DNS", "spec.ports[0].protocol", "multiple"),
    entry(f"hosts: [a.example], {WEB}, resolution: STATIC"),
    entry(
        f"hosts: [a.example], {WEB}, resolution: STATIC, endpoints: [{{address: b.example}}]", "spec.endpoints[0].address", "not a valid IP"
    ),
    entry(f"hosts: [a.example], {WEB}, resolution: STATIC, endpoints: [{{}}]", "spec.endpoints[0]", "address is required"),
    entry(
        f"hosts: [a.example], {WEB}, resolution: STATIC, endpoints: [{{network: west}}]",
        "spec.endpoints[0]",
        "address is required",
        "an endpoint of another network is behind that network's gateway, and there are no other networks here",
    ),
    entry(
        f"hosts: [a.example], {WEB}, resolution: STATIC, endpoints: [{{address: 'unix:///a'}}]",
        "spec.endpoints[0].address",
        "not supported",
        "sidecars here open no unix sockets",
    ),
    entry(
        f"hosts: [a.example], {WEB}, resolution: DNS, endpoints: [{{address: '*.example'}}]",
        "spec.endpoints[0].address",
        'label "*" invalid',
    ),
    entry(
        f"hosts: [a.example], {WEB}, resolution: DNS, endpoints: [{{address: b.example, ports: {{nope: 1}}}}]",
        "spec.endpoints[0].ports.nope",
        "endpoint port nope is not defined",
    ),
    entry(f"hosts: [a.example], {WEB}, endpoints: [{{address: 10.0.0.1}}]", "spec.endpoints", "no endpoints should be provided"),
    entry(f"hosts: [a.example], {WEB}, endpoints: []", "spec.endpoints", "no endpoints should be provided"),
    entry(f"hosts: ['*.example'], {WEB}, resolution: DNS", "spec.hosts[0]", "hosts must be FQDN"),
    entry(
        f"hosts: [a.x], {WEB}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: b.x}}, {{address: c.x}}]",
        "spec.endpoints",
        "0 or 1 endpoint",
    ),
    entry(f"hosts: [a.example], addresses: [nope], {WEB}, {STATIC}", "spec.addresses[0]", "nope is not a valid IP"),
    entry(f"hosts: [a.example], addresses: [10.0.0.0/33], {WEB}, {STATIC}", "spec.addresses[0]", "is not a valid CIDR block"),
    entry(f"hosts: [a.example], addresses: [10.0.0.0/08], {WEB}, {STATIC}", "spec.addresses[0]", "is not a valid CIDR block"),
    entry(f"hosts: [a.example], addresses: [10.0.0.0/8], {WEB}, resolution: DNS", "spec.addresses[0]", "only for NONE/STATIC"),
    entry(f"hosts: [a.example], {WEB}, exportTo: ['~']"),
    entry(f"hosts: [a.example], {WEB}, exportTo: ['~', a]", "spec.exportTo", "no one (~) and someone"),
    entry(f"hosts: [a.example], {WEB}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}"),
    entry(
        f"hosts: [a.example], {WEB}, resolution: STATIC, workloadSelector: {{labels: {{a: '*'}}}}",
        "spec.workloadSelector.labels.a",
        "wildcard or empty key",
    ),
    entry(
        f"hosts: [a.example], {WEB}, resolution: STATIC, workloadSelector: {{labels: {{a: {LONG}}}}}",
        "spec.workloadSelector.labels.a",
        "not be more than 63",
    ),
    entry(
        f"hosts: [a.example], {WEB}, {STATIC}, workloadSelector: {{labels: {{a: b}}}}", "spec", "only one of WorkloadSelector or Endpoints"
    ),
    entry(f"hosts: ['*.example'], {WEB}, resolution: DYNAMIC_DNS"),
    entry(f"hosts: [a.example], {WEB}, resolution: DYNAMIC_DNS", "spec.hosts[0]", "host must be wildcarded"),
    entry(f"hosts: ['*.x'], {WEB}, resolution: DYNAMIC_DNS, addresses: [10.0.0.1]", "spec.addresses", "cannot be set for resolution type"),
    entry(
        "hosts: ['*.x'], ports: [{number: 1, name: a, protocol: TCP}], resolution: DYNAMIC_DNS", "spec.ports[0].protocol", "only HTTP, TLS"
    ),
    entry(f"hosts: [{', '.join(f'a{n}.x' for n in range(257))}], {WEB}", "spec.hosts", "must have at most 256 items, has 257"),
]
PEER_AUTHENTICATIONS = [
    Case("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    Case("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls", "cannot have port level mTLS"),
    Case("PeerAuthentication", "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: DISABLE}}}"),
    Case(
        "PeerAuthentication",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {70000: {mode: DISABLE}}}",
        "spec.portLevelMtls.70000",
        "1..65535",
    ),
    Case("PeerAuthentication", "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "spec.portLevelMtls", "at least one element"),
    Case("PeerAuthentication", f"{{selector: {{matchLabels: {{a: {LONG}}}}}}}", "spec.selector.matchLabels.a", "not be more than 63"),
    Case("PeerAuthentication", "{selector: {matchLabels: {a: 'b*'}}}", "spec.selector.matchLabels.a", "wildcard"),
]
DOMAINS = [
    http("route: [{destination: {host: 10.1.2.3}}]", ".route[0].destination.host", "cannot be all-numeric"),
    http("route: [{destination: {host: '::1'}}]", ".route[0].destination.host", 'label "::1" invalid'),
    http("route: [{destination: {host: 'x.5.'}}]"),
    rule("{host: 10.1.2.3}", "spec.host", "cannot be all-numeric"),
    rule("{host: '*.example.com'}"),
    service(f"{{hosts: [a], gateways: ['*'], http: [{{{ROUTE}}}]}}", "spec.gateways[0]", 'label "*" invalid'),
    service(f"{{hosts: [a], gateways: [10.0.0.1], http: [{{{ROUTE}}}]}}", "spec.gateways[0]", "cannot be all-numeric"),
    service(f"{{hosts: [a], gateways: [mesh, a/b/c], http: [{{{ROUTE}}}]}}"),
    service(f"{{hosts: [10.1.2.3], tls: [{{match: [{{sniHosts: [10.1.2.3]}}], {ROUTE}}}]}}"),
    service(f"{{hosts: [a], exportTo: ['~'], http: [{{{ROUTE}}}]}}", "spec.exportTo[0]", "is allowed in exportTo"),
    service(
        f"{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/40]}}], {ROUTE}}}]}}",
        "spec.tcp[0].match[0].destinationSubnets[0]",
        "not a valid CIDR block",
    ),
    service(
        f"{{hosts: [a.x], tls: [{{match: [{{sniHosts: [a.x], destinationSubnets: [a]}}], {ROUTE}}}]}}",
        "spec.tls[0].match[0].destinationSubnets[0]",
        "not a valid IP",
    ),
    policy("{tunnel: {targetHost: '*.com', targetPort: 80}}", ".tunnel.targetHost", 'label "*" invalid'),
    policy("{tunnel: {targetHost: 10.0.0.1, targetPort: 80}}"),
    server(f"{PORT}, hosts: [10.0.0.1]"),
    server("port: {number: 0, name: http, protocol: HTTP}, hosts: ['*'], bind: 'unix:///a'"),
    server(f"{PORT}, hosts: ['*'], bind: 'unix:///a'", ".port.number", "must be 0 for unix domain socket"),
    server("port: {number: 0, name: http, protocol: HTTP}, hosts: ['*'], bind: 'unix://a'", ".bind", "not an absolute path"),
    server("port: {name: http, protocol: HTTP}, hosts: ['*'], bind: 'unix:///a'", ".port", "port number must be given"),
]
LABELS = [
    rule(f"{{host: a, subsets: [{{name: a, labels: {{a: {LONG}}}}}]}}"),
    rule(f"{{host: a, subsets: [{{name: a, labels: {{{LONG}: a}}}}]}}", f"spec.subsets[0].labels.{LONG}", "invalid label name"),
    rule("{host: a, subsets: [{name: a, labels: {a..b/c: a}}]}", "spec.subsets[0].labels.a..b/c", "invalid label name"),
    rule("{host: a, subsets: [{name: a, labels: {-a/c: a}}]}", "spec.subsets[0].labels.-a/c", "invalid label name"),
    rule(f"{{host: a, workloadSelector: {{matchLabels: {{a: {LONG}}}}}}}", "spec.workloadSelector.matchLabels.a", "not be more than 63"),
    Case(
        "DestinationRule",
        "{host: a}",
        "metadata.annotations.istio.io/dry-run",
        "unsupported",
        "",
        "annotations: {istio.io/dry-run: 'true'}",
    ),
    Case(
        "Gateway",
        f"{{servers: [{{{PORT}, hosts: ['*']}}]}}",
        "metadata.annotations.internal.istio.io/parents",
        "may not be set by users",
        "",
        "annotations: {internal.istio.io/parents: a}",
    ),
]
HEADERS = [
    routed("match: [{headers: {':path': {exact: x}}}]"),
    routed("match: [{headers: {':foo': {exact: x}}}]", ".match[0].headers.:foo", "is not a valid header name"),
    routed("corsPolicy: {allowHeaders: [':method']}", ".corsPolicy.allowHeaders[0]", "not a valid header name"),
    routed("corsPolicy: {exposeHeaders: ['*']}"),
    *(
        routed(f"headers: {{request: {{set: {{x: '{value}'}}}}}}", ".headers.request.set.x", "is invalid")
        for value in ("%X()%", "%X", "%X(a)", "%X(a)b%", '%X(["a" "b"])%', "%X([a])%", '%X(a"b)%', "a\\b(%")
    ),
    *(
        routed(f"headers: {{request: {{set: {{x: '{value}'}}}}}}")
        for value in ("%X(a)%", "%(a)%", '%X(["a", "b"])%', "%X(a\\))%", "%X( a) %", "%X%%Y%", "%X((a)%", "%%X%%")
    ),
]
REGEXES = [
    *(
        routed(f"match: [{{uri: {{regex: '{pattern}'}}}}]", ".match[0].uri.regex", "Istio uses RE2 style")
        for pattern in ("*", "a**", "a{2}{3}", "a{1001}", "(?!a)", "(?>a)", "a++", "(a)\\1", "\\Z", "\\C", "(?P<é>a)", "(?x)a", "a{2,1}")
    ),
    routed(f"match: [{{uri: {{regex: {'é' * 513}}}}}]", ".match[0].uri.regex", "max length allowed is 1024"),
    *(
        routed(f"match: [{{uri: {{regex: '{pattern}'}}}}]")
        for pattern in ("a{,2}", "(?P<n>a)", "(?<n>a)", "(?U)a+", "[[:word:]]", "\\pL\\p{Greek}", "\\Qa*\\E", "\\\\C", "()*", "a{1000}")
    ),
    routed(
        "match: [{uri: {regex: '\\pL{1000}'}}]", ".match[0].uri.regex", "too large", "istiod lets it pass and Envoy's RE2 then refuses it"
    ),
]
DURATIONS = [
    routed("timeout: 0s", ".timeout", "greater than 1ms"),
    routed("timeout: 1.5ms", ".timeout", "ms precision"),
    routed("timeout: 3000000h", ".timeout", "too long"),
    routed("retries: {attempts: 1, backoff: 1h30m}"),
    policy("{loadBalancer: {warmupDurationSecs: 0s}}", ".loadBalancer.warmupDurationSecs", "greater than 1ms"),
    policy("{loadBalancer: {warmupDurationSecs: 1.5ms}}"),
    policy("{connectionPool: {tcp: {idleTimeout: 500us}}}"),
    policy("{connectionPool: {tcp: {idleTimeout: 1.5ms}}}", ".connectionPool.tcp.idleTimeout", "ms precision"),
    policy("{connectionPool: {tcp: {idleTimeout: -1s}}}", ".connectionPool.tcp.idleTimeout", "greater than 1ms"),
    policy(
        "{loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: -1s}}}}",
        ".loadBalancer.consistentHash.httpCookie.ttl",
        "cannot be negative",
        "istiod lets it pass and Envoy then refuses it",
    ),
    routed(
        "fault: {delay: {fixedDelay: 1s, percent: 101}}", ".fault.delay.percent", "not in range 0..100", "istiod looks at `percentage` only"
    ),
]
NUMBERS = [
    http("route: [{destination: {host: a, port: {number: 80.0}}}]"),
    http("route: [{destination: {host: a}, weight: 2147483648}]", ".route[0].weight", "2147483647"),
    policy("{outlierDetection: {outlierDetectionHttpErrorCodes: [99]}}", ".outlierDetection.outlierDetectionHttpErrorCodes[0]", "100..599"),
    policy("{loadBalancer: {warmup: {duration: 1s, minimumPercent: -1}}}", ".loadBalancer.warmup.minimumPercent", "0..100"),
    policy("{loadBalancer: {zoneAwareLbSetting: {minClusterSize: 0}}}", ".loadBalancer.zoneAwareLbSetting.minClusterSize", "at least 1"),
    policy("{tls: {mode: SIMPLE, credentialName: 'configmap://a'}}", ".tls.credentialName", "is not configmap://<namespace>/<name>"),
    policy("{tls: {mode: SIMPLE, credentialName: 'configmap://other/a'}}", ".tls.credentialName", "must match the configuration namespace"),
    policy("{tls: {mode: SIMPLE, credentialName: 'configmap://default/a'}}"),
]
_HTTPS = "port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, "
CERTIFICATES = [
    server(f"{_HTTPS}credentialNames: [a, b]}}"),
    server(f"{_HTTPS}credentialNames: [a, b, c]}}", ".tls.credentialNames", "must have 1 to 2 items, has 3"),
    server(f"{_HTTPS}credentialName: a, tlsCertificates: []}}", ".tls.tlsCertificates", "must have 1 to 2 items, has 0"),
    server(f"{_HTTPS}credentialName: a, credentialNames: [b]}}", ".tls", "only one of"),
    server(
        f"{_HTTPS}credentialName: a, maxProtocolVersion: TLSV1_1}}",
        ".tls.maxProtocolVersion",
        "nobody could connect",
        "gateways here speak TLS 1.2 at the least",
    ),
]


def spread(text: str, path: str = "", message: str = "") -> Case:
    setting = f"{{loadBalancer: {{localityLbSetting: {text}}}}}"
    return policy(setting, path and f".loadBalancer.localityLbSetting{path}", message)


LOCALITIES = [
    spread("{distribute: [{from: a/b, to: {a/b: 80, a/c: 20}}]}"),
    spread("{distribute: [{from: a, to: {b: 0, c: 100}}]}", ".distribute[0].to", "must be in range [1, 100]"),
    spread("{distribute: [{from: a, to: {'b*c': 100}}]}", ".distribute[0].to", "must be in the end"),
    spread("{distribute: [{from: a//b, to: {a: 100}}]}", ".distribute[0].from", "must not contain empty region"),
    spread("{distribute: [{from: a, to: {a: 50, a/b: 50}}]}", ".distribute[0].to", "overlap with previous"),
    spread("{distribute: [{from: a/*, to: {a: 100}}, {from: a/b, to: {a: 100}}]}", ".distribute[1].from", "overlap with previous"),
    spread("{distribute: [{from: a/b, to: {a: 100}}, {from: a, to: {a: 100}}]}", ".distribute[1].from", "overlap with previous"),
    spread("{distribute: [{from: a/b, to: {a: 100}}, {from: a/*, to: {a: 100}}]}"),
    spread("{failover: [{from: a, to: a}]}", ".failover[0]", "must specify different regions"),
    spread("{failover: [{from: a/b, to: c}]}", ".failover[0]", "only specify region"),
    spread("{failover: [{from: a, to: '*'}]}", ".failover[0]", "should not contain '*' wildcard"),
    policy(
        "{loadBalancer: {zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/zone]}}}",
        ".loadBalancer.zoneAwareLbSetting.failoverPriority[0]",
        "must not use topology label",
    ),
]
MORE = [
    *SERVICE_ENTRIES, *PEER_AUTHENTICATIONS, *DOMAINS, *LABELS, *HEADERS, *REGEXES, *DURATIONS, *NUMBERS, *CERTIFICATES, *LOCALITIES,
]  # fmt: skip
