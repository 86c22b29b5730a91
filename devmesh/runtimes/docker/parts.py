"""The mesh's own containers: consul, ca, control, jaeger, the addons; and who is on which network.

`mesh-registry` (consul, control) and `mesh-control` (ca, control, jaeger, prometheus, every pod) are internal; `mesh-host` exists because an internal
network publishes no port, and has only what this machine's own tools speak to.
"""

from __future__ import annotations

from devmesh.runtimes.addons import GRAFANA_SETTINGS, READY, RETENTION
from devmesh.runtimes.docker.layout import ADDON_VOLUMES, CONTROL_NETWORK, HOST_NETWORK, REGISTRY_NETWORK, Json, Layout
from devmesh.runtimes.docker.pods import FOLDER, folder, healthcheck, ours, readiness, trust_volume

# One of them is in every image that can be named here.
FETCH = "wget -qO- {url} 2>/dev/null || curl -fsS {url} 2>/dev/null || bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"


def render_parts(layout: Layout) -> dict[str, Json]:
    made = {"consul": _consul(layout), "ca": _ca(layout), "control": _control(layout), "jaeger": _jaeger(layout)}
    addons = {"prometheus": _prometheus, "grafana": _grafana}
    made |= {name: addons[name](layout) for name in layout.addons}
    return {layout.parts[part]: service for part, service in made.items()}


def address(layout: Layout, part: str, network: str) -> str:
    return layout.addresses.of(network, layout.parts[part])


def _networks(layout: Layout, part: str, *names: str) -> Json:
    return {name: {"ipv4_address": address(layout, part, name)} for name in names}


def _foreign(layout: Layout, part: str, **settings: object) -> Json:
    """Somebody else's image, held as short as ours."""
    service = ours(layout, part) | {"image": layout.images[part]} | settings
    for key in ("entrypoint", "user"):
        if key not in settings:
            del service[key]
    return service


def _consul(layout: Layout) -> Json:
    url = "http://127.0.0.1:8500/v1/status/leader"
    return _foreign(
        layout,
        "consul",
        entrypoint=["consul"],
        # A server, never -dev: that one forgets. Root without a single capability: the volume is root's in any Consul image.
        command=["agent", "-server", "-bootstrap-expect=1", "-ui", f"-config-file={FOLDER}/consul.json"],
        user="0:0",
        networks=_networks(layout, "consul", REGISTRY_NETWORK, HOST_NETWORK),
        ports=[f"127.0.0.1:{layout.ports.registry}:8500"],
        volumes=[folder(layout.part_folder("consul")), {"type": "volume", "source": "mesh-consul", "target": "/devmesh/consul"}],
        mem_limit="512m",
        stop_grace_period="5s",
        healthcheck=healthcheck(["CMD-SHELL", FETCH.format(url=url, port=8500)], start_interval=layout.start_interval),
    )


def _ca(layout: Layout) -> Json:
    return ours(layout, "ca") | {
        "command": ["ca", f"{FOLDER}/settings.json"],
        "networks": _networks(layout, "ca", CONTROL_NETWORK),
        "volumes": [
            folder(layout.part_folder("ca")),
            {"type": "volume", "source": "mesh-ca", "target": "/var/lib/devmesh/ca"},
            trust_volume(read_only=False),
        ],
        "mem_limit": "256m",
        "stop_grace_period": "3s",
        "healthcheck": healthcheck(
            ["CMD", "bash", "-c", "test -e /tmp/ready && exec 3<>/dev/tcp/127.0.0.1/15011"], start_interval=layout.start_interval
        ),
    }


def _control(layout: Layout) -> Json:
    return ours(layout, "control") | {
        "command": ["control", f"{FOLDER}/settings.json"],
        "networks": _networks(layout, "control", REGISTRY_NETWORK, CONTROL_NETWORK, HOST_NETWORK),
        "ports": [f"127.0.0.1:{layout.ports.control}:15014"],
        "volumes": [folder(layout.part_folder("control")), trust_volume(read_only=True)],
        "mem_limit": "512m",
        "stop_grace_period": "3s",
        "healthcheck": healthcheck(readiness(address(layout, "control", HOST_NETWORK), 15014), start_interval=layout.start_interval),
        "depends_on": {layout.parts["consul"]: {"condition": "service_started"}, layout.parts["ca"]: {"condition": "service_started"}},
    }


def _jaeger(layout: Layout) -> Json:
    ports = layout.ports
    published = ((ports.query, 16686), (ports.otlp_grpc, 4317), (ports.otlp, 4318))
    return _foreign(
        layout,
        "jaeger",
        # It would trace itself, each health check too, and bury what the apps do.
        environment={"JAEGER_LISTEN_HOST": "0.0.0.0", "OTEL_TRACES_SAMPLER": "always_off"},
        networks=_networks(layout, "jaeger", CONTROL_NETWORK, HOST_NETWORK),
        ports=[f"127.0.0.1:{host}:{port}" for host, port in published],
        mem_limit="1g",
        stop_grace_period="3s",
        healthcheck=healthcheck(
            ["CMD-SHELL", FETCH.format(url="http://127.0.0.1:16686/", port=16686)], start_interval=layout.start_interval
        ),
    )


def _addon(layout: Layout, name: str, port: int, **settings: object) -> Json:
    url = f"http://127.0.0.1:{port}{READY[name]}"
    return _foreign(
        layout,
        name,
        ports=[f"127.0.0.1:{getattr(layout.ports, name)}:{port}"],
        mem_limit="512m",
        stop_grace_period="3s",
        healthcheck=healthcheck(["CMD-SHELL", FETCH.format(url=url, port=port)], start_interval=layout.start_interval),
        **settings,
    )


def _prometheus(layout: Layout) -> Json:
    """On the network where every sidecar's metrics are, and on the one where the control plane's are and whence a browser comes."""
    return _addon(
        layout,
        "prometheus",
        9090,
        command=[
            f"--config.file={FOLDER}/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={RETENTION}",
        ],
        networks=_networks(layout, "prometheus", CONTROL_NETWORK, HOST_NETWORK),
        # The image's own user owns what the volume is made from.
        volumes=[
            folder(layout.part_folder("prometheus")),
            {"type": "volume", "source": ADDON_VOLUMES["prometheus"], "target": "/prometheus"},
        ],
    )


def _grafana(layout: Layout) -> Json:
    return _addon(
        layout,
        "grafana",
        3000,
        environment={**GRAFANA_SETTINGS, "GF_PATHS_PROVISIONING": f"{FOLDER}/provisioning"},
        networks=_networks(layout, "grafana", HOST_NETWORK),
        volumes=[
            folder(layout.part_folder("grafana")),
            {"type": "volume", "source": ADDON_VOLUMES["grafana"], "target": "/var/lib/grafana"},
        ],
        depends_on={layout.parts["prometheus"]: {"condition": "service_started"}},
    )
