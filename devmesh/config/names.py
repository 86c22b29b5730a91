"""Host names as Istio expands them."""

DOMAIN = "cluster.local"


def expand_host(host: str, namespace: str, domain: str = DOMAIN) -> str:
    """Make a short name full in its resource's namespace; addresses, "*" and names with a dot stay (istiod's ResolveShortnameToFQDN)."""
    if not host or host == "*" or "." in host or ":" in host:
        return host
    return f"{host}.{namespace}.svc.{domain}"


def service_fqdn(name: str, namespace: str, domain: str = DOMAIN) -> str:
    return f"{name}.{namespace}.svc.{domain}"


def split_fqdn(host: str, domain: str = DOMAIN) -> tuple[str, str] | None:
    """Give (service, namespace) of a full mesh name, else None."""
    suffix = f".svc.{domain}"
    parts = host.removesuffix(suffix).split(".")
    return (parts[0], parts[1]) if host.endswith(suffix) and len(parts) == 2 else None


def host_matches(pattern: str, host: str) -> bool:
    """Say whether every name `host` stands for is among those `pattern` does (Istio's host.Name.SubsetOf)."""
    if not pattern.startswith("*"):
        return pattern == host
    return host.removeprefix("*").endswith(pattern[1:]) and (not host.startswith("*") or len(host) >= len(pattern))


def hosts_overlap(one: str, other: str) -> bool:
    return host_matches(one, other) or host_matches(other, one)
