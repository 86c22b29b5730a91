from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.square.certificates import Certificates
from tests.square.compilers import Istio
from tests.support.require import tool


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("square"))


@pytest.fixture(scope="module")
def istio() -> Iterator[Istio]:
    with closing(Istio(tool("istio", "istio-oracle"))) as compiler:
        yield compiler
