"""What is not Python and comes with the package is found from a source tree."""

from devmesh.runtimes.packaged import compose_folder


def test_the_list_of_images_the_dockerfile_and_the_dashboards_are_there():
    names = {path.name for path in compose_folder().iterdir()}
    assert {"images.yaml", "Dockerfile", "grafana"} <= names
