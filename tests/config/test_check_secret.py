import textwrap

import pytest

from tests.config.bookinfo import said
from tests.support.web_certificates import WebCa

CA = WebCa()
ONE, OTHER = CA.pair("a.example"), CA.pair("b.example")
ENCRYPTED = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG\n-----END ENCRYPTED PRIVATE KEY-----\n"


def secret(values, kind="Opaque"):
    lines = "".join(f"  {name}: |\n{textwrap.indent(text, '    ')}" for name, text in values.items())
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ntype: {kind}\nstringData:\n{lines or '  {}'}"


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls"])
def test_a_certificate_with_its_key_and_roots_is_fine(kind):
    assert said(secret({"tls.crt": ONE.certificate, "tls.key": ONE.key, "ca.crt": CA.pem}, kind)) == []


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"tls.crt": ONE.certificate, "tls.key": OTHER.key}, "Opaque", "the private key is not the certificate's"),
        ({"tls.crt": "junk\n", "tls.key": ONE.key}, "Opaque", "the certificate is not PEM"),
        ({"tls.crt": ONE.certificate, "tls.key": "junk\n"}, "Opaque", "the private key is not a PEM private key"),
        ({"tls.crt": ONE.certificate}, "kubernetes.io/tls", '"tls.key" is required in a Secret of type kubernetes.io/tls'),
        ({"ca.crt": "junk\n"}, "Opaque", "the CA certificate is not PEM"),
    ],
)
def test_what_no_gateway_could_use_is_an_error_without_a_value_in_it(values, kind, says):
    (found,) = said(secret(values, kind))
    assert " error IST0106 " in found
    assert says in found
    assert "junk" not in found


@pytest.mark.parametrize(("values", "kind"), [({"password": "x\n"}, "Opaque"), ({"a": "x\n"}, "kubernetes.io/dockerconfigjson")])
def test_what_is_not_read_here_is_said(values, kind):
    (found,) = said(secret(values, kind))
    assert " warning DM0007 " in found
