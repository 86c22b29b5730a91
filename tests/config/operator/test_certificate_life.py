"""SECRET_TTL: what no CA would sign is an error at its place, and not a certificate that lives otherwise."""

import pytest

from devmesh.config.operator.certificate_life import SECRET_TTL
from devmesh.config.operator.settings import choose
from devmesh.errors import UsageError


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("1h30m", 5400), ("2160h", 90 * 86400)])
def test_a_life_reaches_the_sidecars_without_a_word(text, seconds):
    choices = choose("demo", (), [f"{SECRET_TTL}={text}"])
    assert (choices.mesh_config()["secret_ttl"], choices.diagnostics) == (seconds, ())
    assert choose("demo", (), [f"values.{SECRET_TTL}={text}"]).mesh_config()["secret_ttl"] == seconds
    assert "secret_ttl" not in choose("demo").mesh_config()


@pytest.mark.parametrize("text", ["0s", "-1h", "2161h", "tomorrow", "60"])
def test_a_life_that_cannot_be_is_refused_with_its_place(text):
    with pytest.raises(UsageError, match=f"--set {SECRET_TTL}: .*must be a duration") as error:
        choose("demo", (), [f"{SECRET_TTL}={text}"])
    assert "SECRET_TTL=1h" in error.value.hint


@pytest.mark.parametrize("name", ["DEFAULT_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL"])
def test_istiods_own_settings_which_its_sidecars_overrule_lead_to_the_one_that_counts(name):
    choices = choose("demo", (), [f"values.pilot.env.{name}=5m"])
    assert ["proxyMetadata.SECRET_TTL" in one.message for one in choices.diagnostics] == [True]
