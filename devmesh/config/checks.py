"""The small rules that istiod's validation is made of, and the collector they report to."""

import http
import re
from collections.abc import Mapping, Sized

import re2

from devmesh.config.istio_networking import Destination, HeaderOperations, Headers, PortSelector, StringMatch
from devmesh.config.model import Diagnostic, Resource, Severity
from devmesh.config.schema import SCHEMA, suggest
from devmesh.config.syntax import (
    MAX_LABEL,
    domain_problem,
    is_address,
    is_header_name,
    is_header_value,
    is_label,
    is_label_key,
    is_label_value,
    subnet_problem,
    wildcard_domain_problem,
)

SCHEMA_WARNING = "IST0133"
FRAMING = frozenset({"content-length", "transfer-encoding"})
CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection"})
NO_EFFECT = "DM0007"
MAX_REGEX = 1024
"""istiod's limit, which keeps Envoy's RE2 programs within bounds."""
_NOT_IN_GO = re.compile(r"(?<!\\)(?:\\\\)*(\\C|\(\?P?<[^>]*[^\x00-\x7f>][^>]*>)")
_PSEUDO_HEADERS = (":method", ":scheme", ":authority", ":path", ":status")
RETRY_POLICIES = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes",
    "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal",
    "resource-exhausted",
    "unavailable",
)  # fmt: skip
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip


class Checker:
    """Collects what is wrong with one resource; every `path` is as in `Resource.lines`."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.found: list[Diagnostic] = []

    def add(self, severity: Severity, code: str, path: str, message: str, hint: str | None = None) -> None:
        where = self.resource.position(path)
        self.found.append(Diagnostic(severity, code, where, f"{self.resource.key}: {message}", hint))

    def error(self, path: str, message: str, hint: str | None = None) -> None:
        self.add("error", SCHEMA, path, f"{path}: {message}", hint)

    def warn(self, path: str, message: str, hint: str | None = None) -> None:
        self.add("warning", SCHEMA_WARNING, path, f"{path}: {message}", hint)

    def no_effect(self, path: str, reason: str) -> None:
        self.add("warning", NO_EFFECT, path, f"{path}: accepted, has no effect here: {reason}")

    def port(self, path: str, number: int) -> None:
        if not 1 <= number <= 65535:
            self.error(path, f"port number {number} must be in the range 1..65535")

    def port_selector(self, path: str, port: PortSelector | None) -> None:
        if port is not None:
            self.port(f"{path}.number", port.number)

    def percent(self, path: str, value: float) -> None:
        """Refuse what Envoy's millionths cannot express (istiod's validatePercentage)."""
        if not 0 <= value <= 100 or 0 < value < 0.0001:
            self.error(path, f"percentage {value:g} is neither 0.0, nor in range [0.0001, 100.0]")

    def status(self, path: str, status: int) -> None:
        if not 200 <= status <= 599:
            self.error(path, f"HTTP status {status} is not in range 200-599")

    def regex(self, path: str, pattern: str) -> None:
        if not pattern:
            self.error(path, "regex string match should not be empty")
        elif len(pattern.encode()) > MAX_REGEX:
            self.error(path, f"regex is too large, max length allowed is {MAX_REGEX}")
        elif problem := regex_problem(pattern):
            self.error(path, f"{problem}; Istio uses RE2 style regex-based match (https://github.com/google/re2/wiki/Syntax)")

    def string_match(self, path: str, match: StringMatch | None, *, empty_prefix: bool = False) -> None:
        if match is None:
            return
        if match.prefix == "" and not empty_prefix:
            self.error(f"{path}.prefix", "prefix string match should not be empty")
        if match.regex is not None:
            self.regex(f"{path}.regex", match.regex)

    def domain(self, path: str, domain: str, *, wildcard: bool = True, address: bool = False) -> bool:
        """Hold a DNS name, of which the first label may be or begin with "*"; whether an address will do depends on the field."""
        if address and is_address(domain):
            return True
        problem = wildcard_domain_problem(domain) if wildcard else domain_problem(domain)
        if problem:
            self.error(path, problem)
        return problem is None

    def subnets(self, path: str, subnets: tuple[str, ...]) -> None:
        for index, one in enumerate(subnets):
            if problem := subnet_problem(one):
                self.error(f"{path}[{index}]", problem)

    def labels(self, path: str, labels: Mapping[str, str]) -> None:
        for key, value in labels.items():
            if not is_label_key(key):
                self.error(f"{path}.{key}", f'invalid label name "{key}"')
            if not is_label_value(value):
                self.error(f"{path}.{key}", f'invalid label value "{value}"')

    def selector(self, path: str, labels: Mapping[str, str]) -> None:
        """Hold a workload selector's labels, which stand at `path`."""
        for key, value in labels.items():
            if not key or "*" in key or "*" in value:
                self.error(f"{path}.{key}", f'wildcard or empty key is not supported in selector: "{key}={value}"')
            elif len(value) > MAX_LABEL:
                self.error(f"{path}.{key}", f"may not be more than {MAX_LABEL} characters")
        if not labels:
            self.warn(path, "workload selector specified without labels")

    def at_most(self, path: str, values: Sized, limit: int) -> None:
        """Hold the limits of the CRDs."""
        if len(values) > limit:
            unit = "characters" if isinstance(values, str) else "items"
            self.error(path, f"must have at most {limit} {unit}, has {len(values)}")

    def export_to(self, path: str, export_to: tuple[str, ...], *, nobody: bool = False) -> None:
        """`nobody`: whether "~" may be said."""
        namespaces = [self.resource.meta.namespace if one == "." else one for one in export_to]
        for index, one in enumerate(namespaces):
            at = f"{path}[{index}]"
            if one in namespaces[:index]:
                self.error(at, f"duplicate entries in exportTo for entry {export_to[index]}")
            elif one != "*" and not is_label(one) and not (nobody and one == "~"):
                self.error(at, f'only ".", "*" or a namespace is allowed in exportTo, not "{one}"')
        if "*" in namespaces and len(namespaces) > 1:
            self.error(path, "cannot have both public (*) and non-public exportTo values for a resource")
        if "~" in namespaces and len(namespaces) > 1:
            self.error(path, "cannot export to no one (~) and someone")

    def destination(self, path: str, destination: Destination | None) -> None:
        if destination is None:
            self.error(path, "destination is required")
            return
        if destination.host == "*":
            self.error(f"{path}.host", "invalid destination host *")
        else:
            self.domain(f"{path}.host", destination.host)
        if destination.subset and not is_label(destination.subset):
            self.error(f"{path}.subset", f"subset name is invalid: {destination.subset}")
        self.port_selector(f"{path}.port", destination.port)

    def header_match_name(self, path: str, name: str) -> None:
        if name not in _PSEUDO_HEADERS and not name.startswith("@request.auth.claims"):
            self.header_name(path, name)

    def header_name(self, path: str, name: str) -> None:
        if not is_header_name(name):
            self.error(path, f'header name "{name}" is not a valid header name')

    def header_operations(self, path: str, headers: Headers | None) -> None:
        if headers is not None:
            self._operations(f"{path}.request", headers.request, FRAMING, authority=True)
            self._operations(f"{path}.response", headers.response, FRAMING | CONNECTION, authority=False)

    def _operations(self, path: str, operations: HeaderOperations | None, proxys: frozenset[str], *, authority: bool) -> None:
        if operations is None:
            return
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                self._header_name(f"{path}.{verb}.{name}", name, proxys, authority=authority)
                if not is_header_value(value):
                    hint = 'write a literal "%" as "%%"' if "%" in value else None
                    self.error(f"{path}.{verb}.{name}", f"header value configuration {value} is invalid", hint)
        for index, name in enumerate(operations.remove):
            self._header_name(f"{path}.remove[{index}]", name, FRAMING, authority=False)

    def _header_name(self, path: str, name: str, proxys: frozenset[str], *, authority: bool) -> None:
        if not name:
            self.error(path, "header name cannot be empty")
        elif name.lower() in ("host", ":authority") and authority:
            return
        elif name.lower() == "host":
            self.error(path, f'invalid header "{name}": cannot set Host header')
        elif name.startswith(":"):
            self.error(path, f'invalid header "{name}": header cannot have ":" prefix')
        elif name.lower() in proxys:
            self.no_effect(path, "the proxy itself says where a body ends and what becomes of a connection")

    def word(self, path: str, word: str, known: tuple[str, ...], message: str) -> None:
        if word not in known:
            self.error(path, message, suggest(word, known))


def regex_problem(pattern: str) -> str | None:
    """Say why RE2 does not take a pattern, or Go's reading of it, which istiod asks: no single bytes, no names beyond ASCII."""
    if strange := _NOT_IN_GO.search(pattern):
        return f'regex "{pattern}" is invalid: "{strange[1]}" is not supported'
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        return f'regex "{pattern}" is invalid: {reason.decode() if isinstance(reason, bytes) else reason}'
    return None


def is_retry_policy(word: str) -> bool:
    return word in RETRY_POLICIES or (word.isdecimal() and int(word) in {one.value for one in http.HTTPStatus})
