"""What the API server and istiod's validation say of a resource's metadata."""

from devmesh.config.checks import Checker
from devmesh.config.syntax import MAX_LABEL, is_label_key

_ISTIO = "istio.io"
_INTERNAL = ("internal.istio.io/webhook-always-reject", "internal.istio.io/parents", "internal.istio.io/parent-namespace")
_DRY_RUN = "istio.io/dry-run"


def check_metadata(check: Checker) -> None:
    meta = check.resource.meta
    check.labels("metadata.labels", meta.labels)
    for key, value in meta.labels.items():
        check.at_most(f"metadata.labels.{key}", value, MAX_LABEL)
    for key in meta.annotations:
        path = f"metadata.annotations.{key}"
        if not is_label_key(key):
            check.error(path, f'invalid annotation name "{key}"')
        if not check.resource.key.group.endswith(_ISTIO):
            continue
        if key in _INTERNAL:
            check.error(path, f'"{key}" annotation found, this may not be set by users')
        elif key == _DRY_RUN:
            check.error(path, f"unsupported annotation {key}: only an AuthorizationPolicy is run dry", "remove the annotation")
