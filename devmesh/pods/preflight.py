"""What a machine needs for pods, what exactly it lacks, and the one command that would help."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOOLS = {"ip": "iproute2", "iptables-restore": "iptables", "nsenter": "util-linux"}  # program -> Debian's package


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this machine has no pods; `hint` is a command, or what to do where no command helps."""

    why: str
    hint: str

    def __str__(self) -> str:
        return f"{self.why}; to allow it: {self.hint}"


def missing_tools(which: Callable[[str], str | None] = shutil.which) -> Refusal | None:
    """Name the programs that are not there; `/usr/sbin` counts, though a user's PATH may lack it."""
    missing = [tool for tool in TOOLS if which(tool) is None and not Path("/usr/sbin", tool).exists()]
    if not missing:
        return None
    packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
    return Refusal(f"pods need {', '.join(missing)}", f"sudo apt-get install {packages}")


def explain(why: str, read: Callable[[str], str | None] | None = None) -> Refusal:
    """Turn what a pod's set-up said into what to do about it. `read` gives a sysctl's value by its path below /proc/sys."""
    setting = read or _sysctl
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Refusal(f"AppArmor refuses user namespaces ({why})", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    if setting("kernel/unprivileged_userns_clone") == "0":
        return Refusal(f"the kernel refuses user namespaces ({why})", "sudo sysctl -w kernel.unprivileged_userns_clone=1")
    for kind in ("user", "net", "mnt", "pid"):
        if setting(f"user/max_{kind}_namespaces") == "0":
            return Refusal(f"no {kind} namespaces are allowed ({why})", f"sudo sysctl -w user.max_{kind}_namespaces=15000")
    if "iptables" in why:
        return Refusal(f"the redirect's rules are refused: {why}", "sudo modprobe -a nf_tables nft_chain_nat xt_REDIRECT ip6table_nat")
    return Refusal(f"namespaces are refused: {why}", "run it outside of the container, or start the container with --privileged")


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None
