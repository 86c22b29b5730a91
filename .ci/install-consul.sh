#!/bin/sh
# Puts Debian bullseye's Consul 1.8.7 into ~/.cache/devmesh-tools/consul, for tests/conformance/test_registry.py.
set -eu
cd "$(dirname "$0")"
target="${1:-${DEVMESH_TOOLS:-$HOME/.cache/devmesh-tools}}"
if [ -x "$target/consul" ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./debian-package.sh bullseye consul "$work"
mkdir -p "$target"
install -m 0755 "$work/usr/bin/consul" "$target/consul"
"$target/consul" version
