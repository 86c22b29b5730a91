"""A pod's /etc/hosts and /etc/resolv.conf: VIPs of the mesh's services, then the resolver that the redirect leads to 15053."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from devmesh.pods.namespaces import MS_BIND, mount

HOST_GATEWAY_NAME = "host.docker.internal"
HOST_GATEWAY = "240.241.0.1"  # stands for the host's loopback; outside every mesh's VIPs (240.240.0.0/16)
CLUSTER_DOMAIN = "cluster.local"


def host_aliases(name: str, namespace: str, own_namespace: str) -> list[str]:
    """What an app may call a service, as kube-dns with Istio's search domains resolves it; a name with a dot is full already."""
    if "." in name:
        return [name]
    longer = [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}"]
    return [name, *longer] if namespace == own_namespace else longer


def hosts_file(existing: str, hostname: str, address: str, vips: Mapping[str, Iterable[str]]) -> str:
    """`vips` maps an address to its names; a name of the mesh that the machine's file has too means the mesh's."""
    ours = {name for names in vips.values() for name in names} | {HOST_GATEWAY_NAME, hostname}
    kept = [line for line in existing.splitlines() if not ours & set(line.partition("#")[0].split()[1:])]
    lines = [*kept, f"{address}\t{hostname}", f"{HOST_GATEWAY}\t{HOST_GATEWAY_NAME}"]
    return "\n".join([*lines, *(f"{vip}\t{' '.join(names)}" for vip, names in vips.items())]) + "\n"


def resolv_conf(existing: str, namespace: str) -> str:
    """Kubernetes' search list and ndots, then the machine's own search list; the one nameserver is the sidecar."""
    domains = [f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN]
    for line in existing.splitlines():
        words = line.split()
        if words[:1] in (["search"], ["domain"]):
            domains += [word for word in words[1:] if word not in domains]
    return f"nameserver 127.0.0.1\nsearch {' '.join(domains)}\noptions ndots:5\n"


def read_or_empty(path: str) -> str:
    """`/etc/resolv.conf` may be absent, or a link to nothing."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def mount_over(source: Path, target: str) -> str | None:
    """Bind a file of ours over the machine's, in our mount namespace; why that did not work, else None.

    A link is followed by mount(2). An absent target cannot be made without root: glibc then asks 127.0.0.1:53, which the redirect catches.
    """
    try:
        mount(str(source), target, flags=MS_BIND)
    except OSError as error:
        return f"{error.strerror}"
    return None
