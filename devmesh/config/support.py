"""What devmesh says about kinds it knows and does not implement."""

from devmesh.config.kinds import support_of
from devmesh.config.model import Diagnostic, Resource

NOT_YET, UNSAFE = "DM0005", "DM0006"


def support_diagnostics(resource: Resource) -> list[Diagnostic]:
    kind, where = resource.key.kind, resource.position("kind")
    support = support_of(resource.key.group, kind)
    if support == "not_yet":
        return [Diagnostic("warning", NOT_YET, where, f"{resource.key} is read but does nothing here: devmesh does not support {kind} yet")]
    if support == "unsafe_to_ignore":
        message = f"{resource.key} is refused: devmesh does not enforce {kind} yet, and a mesh that ignored it would allow what it forbids"
        return [Diagnostic("error", UNSAFE, where, message, "take it out of what you apply here, knowing that this mesh then lacks it")]
    return []
