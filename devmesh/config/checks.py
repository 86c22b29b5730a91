"""The small rules that istiod's validation is made of, and the collector they report to."""

import http
import ipaddress
import re
from collections.abc import Mapping

import re2

from devmesh.config.istio_networking import Destination, HeaderOperations, Headers, PortSelector, StringMatch
from devmesh.config.istio_types import WorkloadSelector
from devmesh.config.model import Diagnostic, Resource, Severity
from devmesh.config.schema import SCHEMA, suggest

SCHEMA_WARNING = "IST0133"
NO_EFFECT = "DM0007"
MAX_REGEX = 1024
"""istiod's limit, which keeps Envoy's RE2 programs within bounds."""
_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_FIRST_LABEL = re.compile(r"\*|(\*-?)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_HEADER_FORMAT = re.compile(r"(?:[^%]|%%|%[^%(]+(?:\((?:[^)\\]|\\.)*\) *)?%)*", re.DOTALL)
_LABEL_KEY = re.compile(r"(?:[a-zA-Z0-9.-]{1,253}/)?(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(?:(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PSEUDO_HEADERS = (":method", ":scheme", ":authority")
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
        elif len(pattern) > MAX_REGEX:
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

    def domain(self, path: str, domain: str) -> bool:
        """Accept a DNS name whose first label may be or begin with "*", or an address."""
        if problem := domain_problem(domain):
            self.error(path, problem)
        return problem is None

    def labels(self, path: str, labels: Mapping[str, str]) -> None:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                self.error(f"{path}.{key}", f'invalid label name "{key}"')
            if not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
                self.error(f"{path}.{key}", f'invalid label value "{value}"')

    def selector(self, path: str, selector: WorkloadSelector | None) -> None:
        if selector is None:
            return
        for key, value in selector.match_labels.items():
            if not key or "*" in key or "*" in value:
                self.error(f"{path}.matchLabels.{key}", f'wildcard or empty key is not supported in selector: "{key}={value}"')
        if not selector.match_labels:
            self.warn(path, "workload selector specified without labels")

    def export_to(self, path: str, export_to: tuple[str, ...]) -> None:
        namespaces = [self.resource.meta.namespace if one == "." else one for one in export_to]
        for index, one in enumerate(namespaces):
            at = f"{path}[{index}]"
            if one in namespaces[:index]:
                self.error(at, f"duplicate entries in exportTo for entry {export_to[index]}")
            elif one != "*" and not _LABEL.fullmatch(one):
                self.error(at, f'only ".", "*" or a namespace is allowed in exportTo, not "{one}"')
        if "*" in namespaces and len(namespaces) > 1:
            self.error(path, "cannot have both public (*) and non-public exportTo values for a resource")

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
        if name not in _PSEUDO_HEADERS and not name.startswith("@request.auth.claims") and not _HEADER_NAME.fullmatch(name):
            self.error(path, f'header name "{name}" is not a valid header name')

    def header_operations(self, path: str, headers: Headers | None) -> None:
        if headers is not None:
            self._operations(f"{path}.request", headers.request, authority=True)
            self._operations(f"{path}.response", headers.response, authority=False)

    def _operations(self, path: str, operations: HeaderOperations | None, *, authority: bool) -> None:
        if operations is None:
            return
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                self._header_name(f"{path}.{verb}.{name}", name, authority=authority)
                if not _HEADER_VALUE.fullmatch(value) or not _HEADER_FORMAT.fullmatch(value):
                    hint = 'write a literal "%" as "%%"' if "%" in value else None
                    self.error(f"{path}.{verb}.{name}", f"header value configuration {value} is invalid", hint)
        for index, name in enumerate(operations.remove):
            self._header_name(f"{path}.remove[{index}]", name, authority=False)

    def _header_name(self, path: str, name: str, *, authority: bool) -> None:
        if not name:
            self.error(path, "header name cannot be empty")
        elif name.lower() in ("host", ":authority") and authority:
            return
        elif name.lower() == "host":
            self.error(path, f'invalid header "{name}": cannot set Host header')
        elif name.startswith(":"):
            self.error(path, f'invalid header "{name}": header cannot have ":" prefix')

    def word(self, path: str, word: str, known: tuple[str, ...], message: str) -> None:
        if word not in known:
            self.error(path, message, suggest(word, known))


def regex_problem(pattern: str) -> str | None:
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


def is_label(name: str) -> bool:
    return len(name) <= 63 and bool(_LABEL.fullmatch(name))


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def domain_problem(domain: str) -> str | None:
    """Say what is wrong with a name that may begin with a wildcard (istiod's ValidateWildcardDomain); addresses pass."""
    if not domain:
        return "empty domain name not allowed"
    if is_address(domain):
        return None
    if len(domain) > 255:
        return f'domain name "{domain}" too long (max 255)'
    first, dot, rest = domain.partition(".")
    if not _FIRST_LABEL.fullmatch(first) or len(first) > 63:
        return f'domain name "{domain}" invalid (label "{first}" invalid)'
    labels = rest.removesuffix(".").split(".") if dot and rest else []
    if labels and labels[-1].isdecimal():
        return f'domain name "{domain}" invalid (top level domain "{labels[-1]}" cannot be all-numeric)'
    return next((f'domain name "{domain}" invalid (label "{label}" invalid)' for label in labels if not is_label(label)), None)
