"""Istio's addons that a mesh can have here, by the names of `addonComponents`; apart, because what lists them needs nothing else."""

PROMETHEUS, GRAFANA = "prometheus", "grafana"
ADDONS = (PROMETHEUS, GRAFANA)
