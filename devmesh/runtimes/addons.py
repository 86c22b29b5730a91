"""Prometheus and Grafana: what they are told, whichever runtime starts them. Every file is JSON, which is YAML too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.config.addon_names import ADDONS, GRAFANA, PROMETHEUS
from devmesh.config.topology_types import Workload
from devmesh.runtimes.packaged import compose_folder

__all__ = ["ADDONS", "GRAFANA", "PROMETHEUS"]
Json = dict[str, Any]
PORTS: Mapping[str, int] = {PROMETHEUS: 9090, GRAFANA: 3000}
READY: Mapping[str, str] = {PROMETHEUS: "/-/ready", GRAFANA: "/api/health"}
# Istio's addon asks every 15 s; one machine has few targets and somebody who waits.
SCRAPE_SECONDS = 5
RETENTION = "2d"
DATASOURCE = "prometheus"
"""The uid by which the dashboards name their datasource."""
# Where whoever opens the page is taken for a viewer: it is on loopback, and what it shows is files.
GRAFANA_SETTINGS: Mapping[str, str] = {
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_AUTH_ANONYMOUS_ENABLED": "true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "GF_AUTH_BASIC_ENABLED": "false",
    "GF_AUTH_DISABLE_LOGIN_FORM": "true",
    "GF_LOG_MODE": "console",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One sidecar, or the control plane, by where its metrics are; `labels` are those of its series."""

    address: str
    labels: Mapping[str, str]

    @staticmethod
    def of(workload: Workload, address: str) -> Target:
        """With the labels that Istio's addon gives the series of a pod."""
        labels = {"app": workload.service, "version": workload.version, "namespace": workload.namespace, "pod": workload.name}
        return Target(address, labels)


def control_plane(address: str) -> Target:
    """With the label that Istio's own dashboards ask for."""
    return Target(address, {"app": "istiod", "namespace": "istio-system", "pod": "control"})


def prometheus_config(folder: str) -> Json:
    """`folder` is where Prometheus finds the targets, which it reads again whenever they change."""

    def job(name: str, path: str) -> Json:
        return {"job_name": name, "metrics_path": path, "file_sd_configs": [{"files": [f"{folder}/{name}*.json"]}]}

    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS - 1}s"},
        "scrape_configs": [job(SIDECARS, "/stats/prometheus"), job(CONTROL, "/metrics")],
    }


SIDECARS, CONTROL = "envoy-stats", "istiod"


def write_prometheus(folder: Path, seen_as: str, sidecars: Iterable[Target], control: Target) -> None:
    """`prometheus.yml` and its targets; `seen_as` is the folder as Prometheus sees it. Meshes that had joined an earlier `up` are forgotten."""
    for path in folder.glob(f"{SIDECARS}-*.json"):
        path.unlink()
    _write(folder / "prometheus.yml", prometheus_config(seen_as))
    _write(folder / f"{SIDECARS}.json", [_group(one) for one in sidecars])
    _write(folder / f"{CONTROL}.json", [_group(control)])


def scrape_remote(folder: Path, project: str, sidecars: Iterable[Target]) -> None:
    """Have the first mesh's Prometheus, whose settings are in `folder`, ask a remote mesh's sidecars too."""
    _write(folder / f"{SIDECARS}-{project}.json", [_group(one) for one in sidecars])


def forget_remote(folder: Path, project: str) -> None:
    (folder / f"{SIDECARS}-{project}.json").unlink(missing_ok=True)


def _group(target: Target) -> Json:
    return {"targets": [target.address], "labels": dict(target.labels)}


def write_grafana(folder: Path, seen_as: str, prometheus_url: str) -> None:
    """The datasource and the dashboards as files, so that they are there at the first look and never half-made."""
    for kind, value in (("datasources", datasources(prometheus_url)), ("dashboards", providers(f"{seen_as}/dashboards"))):
        _write(folder / "provisioning" / kind / "devmesh.yaml", value)
    for kind in ("plugins", "alerting"):
        _open_folder(folder / "provisioning" / kind)
    for path in dashboards():
        _write(folder / "dashboards" / path.name, json.loads(path.read_bytes()))


def datasources(url: str) -> Json:
    """Grafana's provisioning format (grafana.com/docs, "Provision Grafana": datasources)."""
    one = {
        "name": "Prometheus",
        "uid": DATASOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": url,
        "isDefault": True,
        "editable": False,
        "jsonData": {"timeInterval": f"{SCRAPE_SECONDS}s", "httpMethod": "POST"},
    }
    return {"apiVersion": 1, "datasources": [one]}


def providers(path: str) -> Json:
    one = {
        "name": "devmesh",
        "folder": "devmesh",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "options": {"path": path},
    }
    return {"apiVersion": 1, "providers": [one]}


def dashboards() -> list[Path]:
    """Those that come with devmesh."""
    return sorted((compose_folder() / "grafana").glob("*.json"))


def _write(path: Path, value: Any) -> None:
    """Nothing in it is secret, and the addon's own user must read it; left alone when it says this already.

    Readable before it has its name: Prometheus reads a file at once, and does not look again when only its mode is another (file_sd_config).
    """
    data = json.dumps(value, indent=1).encode()
    if path.is_file() and path.read_bytes() == data:
        return
    _open_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.chmod(0o644)  # whatever the umask
    temporary.replace(path)


def _open_folder(path: Path) -> None:
    """Whatever the umask, and so its parents, up to one that is there: an addon's user is not ours."""
    if not path.is_dir():
        _open_folder(path.parent)
        path.mkdir()
        path.chmod(0o755)
