"""Names, addresses, labels and header values as istiod reads them; a `..._problem` says what is wrong, or None."""

import ipaddress
import re

_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_FIRST_LABEL = re.compile(r"\*|(\*-?)?[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_QUALIFIED = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_QUOTED = r'(?:[^\\)"]|\\.)*'
# Envoy's old header parser (router/header_parser.cc), which istiod holds values against: the argument of %NAME(argument)% is
# a list of JSON strings or text whose first character may be anything; an even quote in text begins a list all the same.
_ARGUMENT = rf'\( *(?:\[ *"|[^ \[]){_QUOTED}(?:" *, *"{_QUOTED})*(?:" *\] *\)|\)) *%'
_HEADER_FORMAT = re.compile(rf"(?:[^%]|%%|%[^%(]+%|%[^%(]*{_ARGUMENT})*", re.DOTALL)
MAX_LABEL = 63
MAX_NAME = 253


def is_label(name: str) -> bool:
    """A label of DNS (RFC 1123), in upper case, too."""
    return len(name) <= MAX_LABEL and bool(_LABEL.fullmatch(name))


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def wildcard_domain_problem(domain: str) -> str | None:
    """Hold a name whose first label may be or begin with "*" (istiod's ValidateWildcardDomain); an address is none."""
    if problem := _length_problem(domain):
        return problem
    first, dot, rest = domain.partition(".")
    if not _FIRST_LABEL.fullmatch(first) or len(first) > MAX_LABEL:
        return f'domain name "{domain}" invalid (label "{first}" invalid)'
    return _labels_problem(domain, rest) if dot else None


def domain_problem(domain: str) -> str | None:
    """Hold a name without wildcard (istiod's ValidateFQDN, to which short names are names, too)."""
    return _length_problem(domain) or _labels_problem(domain, domain)


def _length_problem(domain: str) -> str | None:
    if not domain:
        return "empty domain name not allowed"
    return f'domain name "{domain}" too long (max 255)' if len(domain.encode()) > 255 else None


def _labels_problem(domain: str, rest: str) -> str | None:
    labels = rest.split(".")
    if labels[-1].isdecimal():
        return f'domain name "{domain}" invalid (top level domain "{labels[-1]}" cannot be all-numeric)'
    if labels[-1] == "":
        labels.pop()  # "istio.io." is a name that leaves nothing open
    return next((f'domain name "{domain}" invalid (label "{label}" invalid)' for label in labels if not is_label(label)), None)


def subnet_problem(subnet: str) -> str | None:
    """Hold an address or a CIDR range as Go's netip does: no zone in a range, no netmask, no leading zero."""
    address, slash, bits = subnet.partition("/")
    if not slash or "/" in bits:
        return None if is_address(subnet) else f"{subnet} is not a valid IP"
    plain = bits.isdecimal() and bits.isascii() and str(int(bits)) == bits
    if plain and is_address(address) and "%" not in address and int(bits) <= ipaddress.ip_address(address).max_prefixlen:
        return None
    return f"{subnet} is not a valid CIDR block"


def socket_problem(path: str) -> str | None:
    """Hold what follows unix:// (istiod's ValidateUnixAddress); "@" begins an abstract name."""
    if not path:
        return "unix address must not be empty"
    if path.startswith("@") or (path.startswith("/") and not path.endswith("/")):
        return None
    return f"{path} is not an absolute path to a file"


def is_label_key(key: str) -> bool:
    """A Kubernetes label's name, with or without a DNS name before a "/"."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > MAX_NAME or not all(_LABEL.fullmatch(one) for one in prefix.split("."))):
        return False
    return len(name) <= MAX_LABEL and bool(_QUALIFIED.fullmatch(name))


def is_label_value(value: str) -> bool:
    return not value or bool(_QUALIFIED.fullmatch(value))


def is_header_name(name: str) -> bool:
    return bool(_HEADER_NAME.fullmatch(name))


def is_header_value(value: str) -> bool:
    return bool(_HEADER_VALUE.fullmatch(value) and _HEADER_FORMAT.fullmatch(value))
