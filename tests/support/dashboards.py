"""The queries of dashboards, Istio's and ours, asked of a real Prometheus."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.require import tool

ROOT = Path(__file__).parent.parent.parent
# Which of Istio's are about the mesh's traffic; the others (pilot, performance, ztunnel, extension) ask for what Kubernetes' kubelet, a Go
# runtime, a WebAssembly virtual machine or ztunnel counts, and there is none of these here (docs/addons.md).
ISTIO = ("istio-mesh-dashboard.gen.json", "istio-service-dashboard.json", "istio-workload-dashboard.json")
ANY = ("srccluster", "srcns", "srcwl", "dstcluster", "dstns", "dstwl", "dstsvc")
# What Istio's own sidecars never count either: who calls does not know how the other side was reached ("unknown").
NEVER = re.compile(r'reporter="source", connection_security_policy="mutual_tls"|connection_security_policy="mutual_tls", reporter="source"')


def istio_dashboards() -> list[Path]:
    """Out of Istio's own Go module, which its compiler is built from."""
    go = tool("go", "go")
    oracle = ROOT / "tests" / "oracle"
    subprocess.run([go, "mod", "download", "istio.io/istio"], cwd=oracle, check=True, capture_output=True)
    done = subprocess.run([go, "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"], cwd=oracle, check=True, capture_output=True, text=True)
    return [Path(done.stdout.strip()) / "manifests" / "addons" / "dashboards" / name for name in ISTIO]


def queries(dashboard: Path) -> list[str]:
    return list(dict.fromkeys(_expressions(json.loads(dashboard.read_bytes()))))


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        for one in value.values():
            yield from _expressions(one)
    elif isinstance(value, list):
        for one in value:
            yield from _expressions(one)


def filled(query: str, variables: Mapping[str, str]) -> str:
    """As Grafana fills it in: a variable of several values that are all chosen is `.*`."""
    values = {**dict.fromkeys(ANY, ".*"), "__rate_interval": "5m", "qrep": "source|destination", **variables}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


def ask(prometheus: str, query: str) -> int:
    """How many series it gives; an HTTPError for a query that is none."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as response:
        return len(json.load(response)["data"]["result"])


def without_series(prometheus: str, dashboards: Sequence[Path], choices: Sequence[Mapping[str, str]]) -> list[str]:
    """The queries that give nothing, whatever the reader chooses."""
    found = [query for dashboard in dashboards for query in queries(dashboard) if not NEVER.search(query)]
    return [query for query in found if not any(ask(prometheus, filled(query, choice)) for choice in choices)]
