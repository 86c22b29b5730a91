"""How long workload certificates live: SECRET_TTL among the proxy's environment, which Istio's agent asks its CA for."""

from __future__ import annotations

from devmesh.config.durations import parse_duration
from devmesh.config.model import Diagnostic
from devmesh.config.operator.schema import Setting
from devmesh.config.schema import SCHEMA

SECRET_TTL = "meshConfig.defaultConfig.proxyMetadata.SECRET_TTL"  # noqa: S105 - a setting's name
LONGEST = 90 * 24 * 3600.0  # seconds; MAX_WORKLOAD_CERT_TTL, above which istiod refuses to sign


def refused_life(setting: Setting) -> Diagnostic | None:
    """Why no certificate can live so long; None for what can be, and for every other setting."""
    if setting.path.removeprefix("values.") != SECRET_TTL:
        return None
    try:
        seconds = parse_duration(str(setting.value))
    except ValueError as error:
        why = str(error)
    else:
        if 0 < seconds <= LONGEST:
            return None
        why = f"{setting.value} is not between nothing and 2160h, the most that Istio's CA signs for"
    return Diagnostic("error", SCHEMA, setting.where, f"{setting.path} must be a duration: {why}", f"--set {SECRET_TTL}=1h")
