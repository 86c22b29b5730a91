from devmesh.config.istio_service_entry import ServiceEntry


def test_an_entry_is_outside_the_mesh_and_unresolved_unless_it_says_otherwise():
    entry = ServiceEntry()
    assert (entry.location, entry.resolution, entry.endpoints) == ("MESH_EXTERNAL", "NONE", ())
