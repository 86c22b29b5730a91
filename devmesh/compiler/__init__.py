"""The pure compiler: (world, workload) -> snapshot, in the shape that istiod gives it.

*world* (services, workloads, endpoints, resources, settings), *proxy* (one workload's view), *snapshot* (its xDS), *source* (the file:line
of a rule, in the metadata of what it led to), *diagnostic* (what could not be honoured).
"""

from devmesh.compiler.compile import Compiled, compile_proxy
from devmesh.compiler.world import MeshSettings, World

__all__ = ["Compiled", "MeshSettings", "World", "compile_proxy"]
