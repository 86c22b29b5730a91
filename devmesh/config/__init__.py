"""What users write, parsed: a compose file becomes a `Topology`, YAML becomes `Resource`s, and what is wrong with either a `Diagnostic`."""
