"""Names that a compose file gives beside a service's own: whose they are in the mesh, to whom, and which are nobody's."""

import pytest

from devmesh.config.topology import load_topology
from devmesh.errors import DevmeshError

HEAD = "name: shop\nservices:\n"
SQL_TWICE = "".join(
    f"  {name}: {{image: x, expose: ['80'], networks: {{{network}: {{aliases: [sql]}}}}}}\n"
    for name, network in (("a", "one"), ("b", "two"))
)
WEB = "  web: {image: x, expose: ['80']}\n"


def topology(tmp_path, services):
    path = tmp_path / "compose.yaml"
    path.write_text(HEAD + services)
    return load_topology(path, environ={})


def known(found, caller, service="db"):
    return found.service(service).aliases_for(found.workload(caller))


@pytest.mark.parametrize(
    "given",
    ["networks: {default: {aliases: [Shop-Database]}}", "container_name: shop-database", "hostname: shop-database"],
)
def test_a_containers_further_name_is_one_of_its_service(tmp_path, given):
    found = topology(tmp_path, WEB + f"  db: {{image: x, expose: ['5432'], {given}}}\n")
    assert known(found, "web") == ["shop-database"]


def test_an_alias_is_known_on_its_network_only(tmp_path):
    found = topology(
        tmp_path,
        "  web: {image: x, expose: ['80'], networks: [front]}\n"
        "  api: {image: x, expose: ['80'], networks: [back]}\n"
        "  db: {image: x, expose: ['5432'], networks: {front: {aliases: [reader]}, back: {aliases: [writer]}}}\n",
    )
    assert (known(found, "web"), known(found, "api"), known(found, "db")) == (["reader"], ["writer"], ["reader", "writer"])


def test_a_link_is_known_to_the_linking_service_alone(tmp_path):
    found = topology(tmp_path, "  web: {image: x, expose: ['80'], scale: 2, links: ['db:sql']}\n  db: {image: x, expose: ['5432']}\n")
    assert (known(found, "web"), known(found, "web-2"), known(found, "db")) == (["sql"], ["sql"], [])


def test_a_link_is_known_to_who_has_no_port_of_its_own(tmp_path):
    found = topology(tmp_path, "  job: {image: x, links: ['db:sql']}\n  db: {image: x, expose: ['5432']}\n")
    assert (known(found, "job"), known(found, "db")) == (["sql"], [])


def test_who_has_no_port_is_not_told_two_meanings_of_a_name_either(tmp_path):
    with pytest.raises(DevmeshError, match='"sql" means a and b to job'):
        topology(tmp_path, SQL_TWICE + "  job: {image: x, networks: [one, two]}\n")


def test_a_compose_service_that_is_all_of_a_meshs_service_keeps_its_name(tmp_path):
    found = topology(tmp_path, WEB + "  backend: {image: x, expose: ['80'], labels: {app: db}}\n")
    assert known(found, "web") == ["backend"]


def test_the_name_of_one_version_among_several_is_nobodys(tmp_path):
    versions = "".join(f"  db-v{n}: {{image: x, expose: ['80'], labels: {{app: db, version: v{n}}}}}\n" for n in (1, 2))
    found = topology(tmp_path, WEB + versions)
    assert known(found, "web") == []
    assert [one.name for one in found.versions] == ["db-v1", "db-v2"]


def test_an_alias_that_every_version_has_is_the_services(tmp_path):
    versions = "".join(
        f"  db-v{n}: {{image: x, expose: ['80'], labels: {{app: db, version: v{n}}}, networks: {{default: {{aliases: [sql]}}}}}}\n"
        for n in (1, 2)
    )
    assert known(topology(tmp_path, WEB + versions), "web") == ["sql"]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        (
            "".join(f"  {name}: {{image: x, expose: ['80'], networks: {{default: {{aliases: [app]}}}}}}\n" for name in ("blue", "green")),
            r'compose.yaml:3:\d+: "app" would name several services of the mesh: blue and green',
        ),
        (
            WEB + "  db: {image: x, expose: ['80'], container_name: web}\n",
            r'"web" would name several services of the mesh: web and db',
        ),
        (
            WEB + "  db: {image: x, expose: ['80'], hostname: web.default.svc}\n",
            r'compose.yaml:4:\d+: "web.default.svc" is given to db, and is a service of the mesh',
        ),
        (
            "  web: {image: x, expose: ['80'], networks: [one, two]}\n" + SQL_TWICE,
            r'compose.yaml:3:\d+: "sql" means a and b to web',
        ),
    ],
)
def test_a_name_that_cannot_mean_one_service_is_refused_where_it_is_given(tmp_path, services, words):
    with pytest.raises(DevmeshError, match=words):
        topology(tmp_path, services)


def test_a_name_may_mean_another_service_on_another_network(tmp_path):
    found = topology(
        tmp_path,
        SQL_TWICE + "  x: {image: x, expose: ['80'], networks: [one]}\n  y: {image: x, expose: ['80'], networks: [two]}\n",
    )
    assert (known(found, "x", "a"), known(found, "x", "b")) == (["sql"], [])
    assert (known(found, "y", "a"), known(found, "y", "b")) == ([], ["sql"])


def test_a_hostname_of_its_own_namespace_form_or_localhost_is_nothing_new(tmp_path):
    found = topology(
        tmp_path, WEB + "  db: {image: x, expose: ['80'], container_name: localhost, hostname: db.default.svc.cluster.local}\n"
    )
    assert known(found, "web") == []
