"""How this machine reaches its Python packages, for a build that must reach them too: an own index, a proxy, a company's certificate.

It goes in as build secrets: none of it may stay in an image.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# pip's settings that say where packages come from; those that name files or folders here mean nothing in a build.
CARRIED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
CERTIFICATE_SECRET = "/run/secrets/ca.pem"  # noqa: S105 - a path: where the build finds the certificates


@dataclass(frozen=True, slots=True)
class PipSettings:
    """`configuration` is a pip.conf; `certificates` a PEM bundle, empty for pip's own."""

    configuration: str
    certificates: str


def pip_settings(environment: Mapping[str, str] = os.environ, files: Iterable[Path] | None = None) -> PipSettings:
    """As pip here would read them: files from general to particular, then PIP_* variables."""
    settings: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    for file in pip_files(environment) if files is None else files:
        parser.read(file)
    for section in ("global", "install"):
        settings |= dict(parser[section]) if parser.has_section(section) else {}
    settings |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value for name, value in environment.items() if name.startswith("PIP_")
    }
    bundle = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE") or ""
    certificates = Path(bundle).read_text() if bundle and Path(bundle).is_file() else ""
    carried = {name: settings[name] for name in CARRIED if settings.get(name)}
    if certificates:
        carried["cert"] = CERTIFICATE_SECRET
    # A value of several lines is a list to pip, and its other lines must be indented.
    lines = [f"{name} = " + "\n    ".join(value.split("\n")) for name, value in carried.items()]
    return PipSettings("\n".join(["[global]", *lines, ""]), certificates)


def pip_files(environment: Mapping[str, str]) -> list[Path]:
    """Where pip looks, https://pip.pypa.io/en/stable/topics/configuration/#location."""
    home = Path(environment.get("HOME", "/nonexistent"))
    given = environment.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return []
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip" / "pip.conf", user, Path(sys.prefix) / "pip.conf"]
    return [*files, Path(given)] if given else files
