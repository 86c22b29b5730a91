"""Istio's telemetry kinds with the versions that serve them: known by name, read in a later issue."""

KINDS = (("Telemetry", ("v1", "v1alpha1")),)
