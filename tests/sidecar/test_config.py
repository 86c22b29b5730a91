import dataclasses

import pytest

from devmesh.sidecar import config
from devmesh.sidecar.config import ConfigError


def test_a_config_error_names_its_resource():
    error = ConfigError("outbound|9080||reviews", "lb_policy X is not supported")
    assert error.resource == "outbound|9080||reviews"
    assert str(error) == "outbound|9080||reviews: lb_policy X is not supported"


VALUES = [one for one in vars(config).values() if isinstance(one, type) and dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_a_configuration_cannot_change_once_it_is_in_force(value):
    assert value.__dataclass_params__.frozen
    assert value.__dictoffset__ == 0, "an instance can grow attributes"
