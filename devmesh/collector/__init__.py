"""Traces: OTLP in, Jaeger API v3 out."""
