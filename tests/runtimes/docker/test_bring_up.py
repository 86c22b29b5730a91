"""What `up` refuses before it starts anything."""

from pathlib import Path

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.bring_up import FOLDER_LABEL, refuse_others
from devmesh.runtimes.docker.engine import Container
from tests.runtimes.docker.layouts import layout_from

SHOP = "name: shop\nservices:\n  web: {image: web, expose: ['9080']}\n"


def container(folder: str) -> Container:
    return Container("web", "id", "shop-web-1", "running", "", 0, "", 0, "", {FOLDER_LABEL: folder}, "", "no", {})


def test_a_project_of_the_same_name_from_elsewhere_is_left_alone(tmp_path: Path):
    layout = layout_from(tmp_path, SHOP)
    with pytest.raises(DevmeshError, match="/elsewhere/shop") as refused:
        refuse_others(layout, [container("/elsewhere/shop")])
    assert layout.project in str(refused.value)
    assert "down" in str(refused.value.hint)


def test_what_an_earlier_up_of_this_folder_left_is_taken_over(tmp_path: Path):
    layout = layout_from(tmp_path, SHOP)
    refuse_others(layout, [container(str(layout.folder))])
    refuse_others(layout, [])
