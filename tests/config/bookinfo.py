"""A Bookinfo topology and the shortest ways to ask about YAML."""

import textwrap

from devmesh.config.analysis import analyze, merge
from devmesh.config.loader import Loaded, load_text
from devmesh.config.model import Diagnostic
from devmesh.config.topology import Topology, load_topology

COMPOSE = """\
services:
  productpage: {command: run, x-devmesh: {port: 9080, protocol: http}}
  reviews-v1: {command: run, x-devmesh: {service: reviews, version: v1, port: 9080, protocol: http}}
  reviews-v2: {command: run, x-devmesh: {service: reviews, version: v2, port: 9080, protocol: http}}
  ratings: {command: run, x-devmesh: {port: 9080, protocol: http}}
  grpc: {command: run, x-devmesh: {port: 9000, protocol: grpc}}
  redis: {command: run, x-devmesh: {port: 6379, protocol: tcp}}
  shop: {command: run, x-devmesh: {port: [8080, 8081], protocol: http, namespace: shop}}
"""


def topology(tmp_path) -> Topology:
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE)
    return load_topology(path, environ={})


def load(text: str) -> Loaded:
    return load_text(textwrap.dedent(text), "mesh.yaml")


def diagnose(text: str, where: Topology | None = None) -> list[Diagnostic]:
    loaded = load(text)
    return merge([loaded.diagnostics, analyze(loaded.resources, where)])


def said(text: str, where: Topology | None = None) -> list[str]:
    return [f"{one.where.line}:{one.where.column} {one.severity} {one.code} {one.message}" for one in diagnose(text, where) if one.where]


def virtual_service(http: str, hosts: str = "[reviews]", extra: str = "") -> str:
    """One VirtualService whose `http:` list is given as flow YAML."""
    head = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: reviews}, spec: {hosts: "
    return f"{head}{hosts}, http: [{http}]{', ' if extra else ''}{extra}}}}}\n"


def destination_rule(policy: str, extra: str = "") -> str:
    head = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews}, spec: {host: reviews"
    return f"{head}, trafficPolicy: {policy}{', ' if extra else ''}{extra}}}}}\n"


ROUTE = "route: [{destination: {host: reviews}}]"
