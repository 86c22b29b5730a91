"""Pods without an engine: one user, network, mount, PID and UTS namespace per workload, for `namespace` interception (Linux, no root).

Four words: the *pod* (the namespaces), its *init* (PID 1 inside; starts the app, makes connections to it), the *redirect* (outbound TCP to 15001,
DNS to 15053, whose sockets are made inside and served by the sidecar outside), the *connector* (how the sidecar asks the init for a connection).
"""
