from devmesh.pods.namespaces import unchanged


def test_the_machines_root_maps_every_id_to_itself():
    assert unchanged("         0          0 4294967295\n") == "0 0 4294967295\n"


def test_root_in_a_container_maps_the_ids_that_it_has():
    assert unchanged("         0     100000      65536\n     70000          7          1\n") == "0 0 65536\n70000 70000 1\n"
