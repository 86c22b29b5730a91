"""Whether an app that has ended is started again: compose's `restart` (Compose specification, "restart"; the engine's restart policies)."""

from __future__ import annotations


def comes_back(policy: str, status: int, restarts: int, *, listens: bool) -> bool:
    """`policy` is no, always, unless-stopped, on-failure or on-failure:MOST, `restarts` how often it was started again.

    Without a policy as in a pod of Kubernetes, always; but a job (it listens on no port) that has ended with 0 is done.
    """
    name, _, most = policy.partition(":")
    if name == "no":
        return False
    if name == "on-failure":
        return status != 0 and (not most or restarts < int(most))
    return bool(name) or listens or status != 0
