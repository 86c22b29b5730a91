"""What of this machine's pip goes into a build, and what stays here."""

import configparser

from devmesh.runtimes.docker.pip_settings import pip_files, pip_settings


def read(configuration):
    parser = configparser.RawConfigParser()
    parser.read_string(configuration)
    return dict(parser["global"])


def files(folder, *texts):
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.conf"
        path.write_text(text)
        paths.append(path)
    return paths


def test_variables_beat_files_and_later_files_earlier_ones(tmp_path):
    written = files(tmp_path, "[global]\nindex-url = a\nproxy = a\n[install]\nretries = 7\n", "[global]\nindex-url = b\nproxy = b\n")
    settings = pip_settings({"PIP_INDEX_URL": "c"}, written)
    assert read(settings.configuration) == {"index-url": "c", "proxy": "b", "retries": "7"}


def test_what_names_files_of_this_machine_stays_here(tmp_path):
    [written] = files(tmp_path, "[global]\nfind-links = /wheels\nclient-cert = /key\nno-index = true\ncache-dir = /c\n")
    assert read(pip_settings({"PIP_TARGET": "/x", "PIP_CONFIG_FILE": "/y"}, [written]).configuration) == {}


def test_certificates_go_in_as_a_file_of_their_own(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("PEM")
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        settings = pip_settings({name: str(bundle)}, [])
        assert settings.certificates == "PEM"
        assert read(settings.configuration) == {"cert": "/run/secrets/ca.pem"}


def test_without_certificates_pip_keeps_its_own(tmp_path):
    settings = pip_settings({"PIP_CERT": str(tmp_path / "missing")}, [])
    assert (settings.certificates, read(settings.configuration)) == ("", {})


def test_a_list_stays_a_list(tmp_path):
    written = files(tmp_path, "[global]\nextra-index-url =\n    https://a.example\n    https://b.example\n")
    assert read(pip_settings({}, written).configuration)["extra-index-url"].split() == ["https://a.example", "https://b.example"]


def test_pips_own_places_in_its_own_order(tmp_path):
    found = [str(path) for path in pip_files({"HOME": "/h", "PIP_CONFIG_FILE": "/own"})]
    assert found.index("/etc/pip.conf") < found.index("/h/.pip/pip.conf") < found.index("/h/.config/pip/pip.conf") < found.index("/own")
    assert pip_files({"PIP_CONFIG_FILE": "/dev/null"}) == []
