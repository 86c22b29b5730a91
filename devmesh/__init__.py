"""devmesh: a complete service mesh for one machine."""

__version__ = "0.1.0"
