"""Istio's telemetry kinds: known by name, read in a later issue."""

KINDS = ("Telemetry",)
