"""Port numbers of the local runtime, apart from what plans with them: commands need no more."""

OUTBOUND_PORT = 15001
HTTPS_PORT = 8443  # the ingress gateway's; each of its ports is where a browser finds it, when it is free
REGISTRY_PORT = 8500  # Consul's own
SHIFT = 20_000  # what users without root have added to ports that they may not bind
# Above the shifted ports, below those the kernel hands out for outgoing connections.
APP_PORTS = range(SHIFT + 1024, 32_768)
