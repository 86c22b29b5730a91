from devmesh.ca.files import private_directory, write_private


def test_only_the_owner_may_read(tmp_path):
    directory = private_directory(tmp_path / "ca")
    write_private(directory / "key", b"1")
    write_private(directory / "key", b"2")
    assert (directory / "key").read_bytes() == b"2"
    assert (directory.stat().st_mode & 0o777, (directory / "key").stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in directory.iterdir()] == ["key"]
