#!/bin/sh
# Unpacks a package of another Debian suite into a directory, and installs nothing: debian-package.sh SUITE PACKAGE DIRECTORY
# The machine's own APT source says where packages come from; only the suite is exchanged, and pinned below everything else.
set -eu
suite=$1 package=$2 target=$3
source=/etc/apt/sources.list.d/debian.sources
if [ ! -r "$source" ]; then
    echo "debian-package: no $source to derive a source from" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources" "$work/preferences" "$target"
# The first stanza is the main archive; the security archive has another layout.
awk 'BEGIN { RS = ""; ORS = "\n" } NR == 1' "$source" | sed "s/^Suites:.*/Suites: $suite/" >"$work/sources/$suite.sources"
printf 'Package: *\nPin: release n=%s\nPin-Priority: 50\n' "$suite" >"$work/preferences/$suite"
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" -o Dir::Etc::preferencesparts="$work/preferences" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
(cd "$work" && apt download "$package")
dpkg-deb -x "$work/$package"_*.deb "$target"
