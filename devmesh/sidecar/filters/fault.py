"""envoy.filters.http.fault: decide whether a request is delayed, aborted or both (config/filter/http/fault/v3)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from devmesh.sidecar.config import FaultPolicy
from devmesh.sidecar.message import RequestHead
from devmesh.sidecar.routing import header_matches


@dataclass(frozen=True, slots=True)
class FaultDecision:
    """Delay first, then abort; None leaves that half out."""

    delay: float | None = None  # seconds
    abort_status: int | None = None
    abort_grpc_status: int | None = None
    fault_id: str = ""

    @property
    def fires(self) -> bool:
        return self.delay is not None or self.aborts

    @property
    def aborts(self) -> bool:
        return self.abort_status is not None or self.abort_grpc_status is not None


NO_FAULT: Final = FaultDecision()


def decide(policy: FaultPolicy | None, head: RequestHead, rng: random.Random) -> FaultDecision:
    if policy is None or not all(header_matches(matcher, head) for matcher in policy.headers):
        return NO_FAULT
    delayed = policy.delay is not None and rng.random() < policy.delay_fraction
    aborted = (policy.abort_status is not None or policy.abort_grpc_status is not None) and rng.random() < policy.abort_fraction
    if not delayed and not aborted:
        return NO_FAULT
    return FaultDecision(
        policy.delay if delayed else None,
        policy.abort_status if aborted else None,
        policy.abort_grpc_status if aborted else None,
        policy.fault_id,
    )
