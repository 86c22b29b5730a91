"""Runtimes: *supervisor* (one a mesh), *process* (an app, a sidecar, one of ours), *plan* (who has which address)."""
