"""What Prometheus and Grafana are told; whether they understand it is seen where they run, or asked of Prometheus' own checker."""

import json
import os
import re
import stat
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from devmesh.config.topology_types import Workload
from devmesh.runtimes.addons import (
    DATASOURCE,
    Target,
    control_plane,
    dashboards,
    datasources,
    forget_remote,
    scrape_remote,
    write_grafana,
    write_prometheus,
)
from tests.support.dashboards import NEVER, filled, queries
from tests.support.require import tool

REVIEWS = Workload("reviews-v2", "shop", "reviews", "v2", {}, "reviews", "10.0.0.1", (80,))
TARGETS = [Target.of(REVIEWS, "10.0.0.1:15090")]
CONTROL = control_plane("10.0.0.9:15014")


def test_every_sidecar_is_a_target_with_the_labels_of_a_pod(tmp_path):
    write_prometheus(tmp_path, "/etc/x", TARGETS, CONTROL)
    config = json.loads((tmp_path / "prometheus.yml").read_bytes())
    jobs = {one["job_name"]: (one["metrics_path"], one["file_sd_configs"][0]["files"]) for one in config["scrape_configs"]}
    assert jobs == {"envoy-stats": ("/stats/prometheus", ["/etc/x/envoy-stats*.json"]), "istiod": ("/metrics", ["/etc/x/istiod*.json"])}
    labels = {"app": "reviews", "version": "v2", "namespace": "shop", "pod": "reviews-v2"}
    assert json.loads((tmp_path / "envoy-stats.json").read_bytes()) == [{"targets": ["10.0.0.1:15090"], "labels": labels}]
    assert json.loads((tmp_path / "istiod.json").read_bytes())[0]["labels"]["app"] == "istiod"


def test_prometheus_own_checker_takes_it(tmp_path):
    promtool = tool("prometheus", "promtool")
    write_prometheus(tmp_path, str(tmp_path), TARGETS, CONTROL)
    done = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_targets_are_written_again_only_when_they_change(tmp_path):
    write_prometheus(tmp_path, "/x", TARGETS, CONTROL)
    before = (tmp_path / "envoy-stats.json").stat().st_ino
    write_prometheus(tmp_path, "/x", TARGETS, CONTROL)
    assert (tmp_path / "envoy-stats.json").stat().st_ino == before
    write_prometheus(tmp_path, "/x", [*TARGETS, Target.of(REVIEWS, "10.0.0.2:15090")], CONTROL)
    assert len(json.loads((tmp_path / "envoy-stats.json").read_bytes())) == 2


def test_a_remote_meshs_sidecars_are_targets_from_when_it_joins_until_it_leaves_or_the_first_mesh_comes_up_again(tmp_path):
    write_prometheus(tmp_path, "/x", TARGETS, CONTROL)
    before = set(tmp_path.iterdir())
    scrape_remote(tmp_path, "desk", TARGETS)
    (added,) = set(tmp_path.iterdir()) - before
    assert fnmatch(f"/x/{added.name}", "/x/envoy-stats*.json")
    assert json.loads(added.read_bytes())[0]["targets"] == ["10.0.0.1:15090"]
    forget_remote(tmp_path, "desk")
    forget_remote(tmp_path, "desk")
    assert set(tmp_path.iterdir()) == before
    scrape_remote(tmp_path, "desk", TARGETS)
    write_prometheus(tmp_path, "/x", TARGETS, CONTROL)
    assert set(tmp_path.iterdir()) == before


def test_an_addons_own_user_may_read_everything_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_prometheus(tmp_path / "a" / "prometheus", "/x", TARGETS, CONTROL)
        write_grafana(tmp_path / "a" / "grafana", "/x", "http://prometheus:9090")
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_targets_are_readable_to_prometheus_from_the_moment_they_have_their_name(tmp_path, monkeypatch):
    """It reads a file when it appears, and not when its mode changes."""
    modes = []

    def replace(self, target):
        modes.append(stat.S_IMODE(self.stat().st_mode))
        self.rename(target)

    monkeypatch.setattr(Path, "replace", replace)
    scrape_remote(tmp_path, "desk", TARGETS)
    assert modes == [0o644]


def test_grafana_finds_its_datasource_and_its_dashboards_where_it_looks(tmp_path):
    write_grafana(tmp_path, "/etc/devmesh", "http://prometheus:9090")
    (one,) = json.loads((tmp_path / "provisioning" / "datasources" / "devmesh.yaml").read_bytes())["datasources"]
    assert (one["url"], one["uid"], one["type"], one["access"], one["isDefault"]) == (
        "http://prometheus:9090",
        DATASOURCE,
        "prometheus",
        "proxy",
        True,
    )
    (provider,) = json.loads((tmp_path / "provisioning" / "dashboards" / "devmesh.yaml").read_bytes())["providers"]
    assert (provider["type"], provider["options"]) == ("file", {"path": "/etc/devmesh/dashboards"})
    assert sorted(path.name for path in (tmp_path / "dashboards").iterdir()) == [path.name for path in dashboards()]
    assert datasources("x")["apiVersion"] == 1


BOARDS = dashboards()


def panels(board):
    return json.loads(board.read_bytes())["panels"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_has_the_shape_that_grafana_reads(board):
    value = json.loads(board.read_bytes())
    assert value["uid"] == board.stem
    assert value["title"]
    assert value["schemaVersion"] >= 36
    assert value["time"]["from"].startswith("now-")
    assert len({one["id"] for one in value["panels"]}) == len(value["panels"]) > 5
    variables = {one["name"] for one in value["templating"]["list"]}
    for one in value["panels"]:
        assert one["type"] in ("timeseries", "stat")
        assert one["datasource"] == {"type": "prometheus", "uid": DATASOURCE}
        assert {target["refId"] for target in one["targets"]} <= set("ABCD")
        for target in one["targets"]:
            assert target["datasource"]["uid"] == DATASOURCE
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap_and_fit_the_grid(board):
    taken = set()
    for one in panels(board):
        at = one["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, one["title"]
        taken |= cells


def test_variables_are_filled_in_as_grafana_does():
    query = 'sum(rate(a{r=~"$qrep", s="$service", w=~"$srcwl"}[$__rate_interval]))'
    assert filled(query, {"service": "x"}) == 'sum(rate(a{r=~"source|destination", s="x", w=~".*"}[5m]))'


def test_no_query_of_ours_is_one_that_finds_nothing_anywhere():
    found = [query for board in BOARDS for query in queries(board)]
    assert len(found) > 25
    assert [one for one in found if NEVER.search(one)] == []
