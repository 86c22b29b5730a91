"""What a sidecar and an app are started with: `bootstrap.json` (devmesh/README.md) and the environment that leads an app to its sidecar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devmesh.pods.names import HOST_GATEWAY, HOST_GATEWAY_NAME
from devmesh.runtimes.bootstrap import Servers, tracing_environment
from devmesh.runtimes.bootstrap import sidecar_bootstrap as shared_bootstrap
from devmesh.runtimes.local.plan import WorkloadPlan, first_bindable_port
from devmesh.runtimes.local.ports import OUTBOUND_PORT, SHIFT


def sidecar_bootstrap(plan: WorkloadPlan, servers: Servers, ca: dict[str, str], access_log: Path, files: Path) -> dict[str, Any]:
    """Each of the workload's addresses leads to the app's own."""
    dial = {f"{plan.workload.ip}:{port}": _app_address(plan, app) for port, app in plan.app_ports.items()}
    return {
        **shared_bootstrap(plan.workload, servers, ca, str(access_log), dial, str(files)),
        "shift": {"below": first_bindable_port(), "by": SHIFT},
        **(_pod_settings(servers) if plan.interception == "namespace" else {}),
    }


def _app_address(plan: WorkloadPlan, port: int) -> str:
    return f"{plan.workload.ip if plan.interception == 'namespace' else '127.0.0.1'}:{port}"


def _pod_settings(servers: Servers) -> dict[str, Any]:
    """What a pod's addresses mean outside; the app's own spans go to the collector as they are."""
    return {
        "aliases": {HOST_GATEWAY: "127.0.0.1"},
        "alias_names": {HOST_GATEWAY_NAME: HOST_GATEWAY},
        "excluded": [f"{HOST_GATEWAY}:{urlsplit(servers.otlp_url).port}"],
    }


def app_environment(plan: WorkloadPlan, servers: Servers) -> dict[str, str]:
    """The user's own environment, the compose file's over it, ours over both."""
    if plan.interception == "namespace":
        return {**os.environ, **pod_environment(plan, servers)}
    workload = plan.workload
    proxy = f"http://{workload.ip}:{OUTBOUND_PORT}"
    environment = {
        **os.environ,
        **workload.environment,
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "NODE_USE_ENV_PROXY": "1",
        "POD_NAME": workload.name,
        "HOST": "127.0.0.1",
        **tracing_environment(workload, servers.otlp_url),
    }
    if plan.app_ports:
        environment["PORT"] = str(next(iter(plan.app_ports.values())))
    return environment


def pod_environment(plan: WorkloadPlan, servers: Servers) -> dict[str, str]:
    """What an app's differs in from the user's own. Nothing in it is about the mesh: a container has its host name and where its spans go, too."""
    workload = plan.workload
    collector = urlsplit(servers.otlp_url)
    ours = {
        "HOSTNAME": workload.name,
        "POD_NAME": workload.name,
        **tracing_environment(workload, f"http://{HOST_GATEWAY_NAME}:{collector.port}"),
    }
    return {**ours, **workload.environment}
