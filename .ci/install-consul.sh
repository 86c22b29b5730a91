#!/bin/sh
# Puts Debian bullseye's Consul 1.8.7 into ~/.cache/devmesh-tools/consul, for tests/conformance/test_registry.py.
# The machine's own APT source says where packages come from; only the suite is exchanged, and pinned below everything else.
set -eu
target="${1:-${DEVMESH_TOOLS:-$HOME/.cache/devmesh-tools}}"
source=/etc/apt/sources.list.d/debian.sources
if [ -x "$target/consul" ]; then exit 0; fi
if [ ! -r "$source" ]; then
    echo "install-consul: no $source to derive a source from" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources" "$work/preferences" "$target"
# The first stanza is the main archive; the security archive has another layout.
awk 'BEGIN { RS = ""; ORS = "\n" } NR == 1' "$source" | sed 's/^Suites:.*/Suites: bullseye/' >"$work/sources/bullseye.sources"
printf 'Package: *\nPin: release n=bullseye\nPin-Priority: 50\n' >"$work/preferences/bullseye"
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" -o Dir::Etc::preferencesparts="$work/preferences" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
(cd "$work" && apt download consul)
dpkg-deb -x "$work"/consul_*.deb "$work/root"
install -m 0755 "$work/root/usr/bin/consul" "$target/consul"
"$target/consul" version
