#!/usr/bin/env bash
# Images that the Docker tests run on, made from Debian's packages and the tools of tools.sh, since they must not need an image registry.
# Each bears a label with the hash of what it was made from, and is made again only when that changes.
set -euo pipefail
cd "$(dirname "$0")"
environment=$1
docker=${DOCKER:-docker}
tools=${DEVMESH_TOOLS:-$HOME/.cache/devmesh-tools}
consul=$tools/consul
[ -x "$consul" ] || consul=$(command -v consul) || { echo "images: no consul; .ci/tools.sh gets one" >&2; exit 1; }
label=devmesh-test.content
base=devmesh-test/python:3.11
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hash() { sha256sum | cut -d ' ' -f 1; }
content() { "$docker" image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true; }

# Debian with Python, in the place of Docker Hub's python:3.11-slim-bookworm.
make_base() {
  local content suite=bookworm mirror
  content=$(declare -f make_base | hash)
  [ "$(content "$base")" != "$content" ] || return 0
  echo "images: $base"
  if ! command -v debootstrap >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
  fi
  mirror=$(awk '$1 == "URIs:" {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/root" "$mirror" >"$work/debootstrap.log" ||
    { tail -n 5 "$work/debootstrap.log" >&2; return 1; }
  # As Docker Hub's Debian images have it: apt's caches are not for layers.
  echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' >"$work/root/etc/apt/apt.conf.d/docker-clean"
  tar -C "$work/root" --one-file-system --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' --exclude='./dev/*' -c . |
    "$docker" import --change "LABEL $label=$content" --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' - "$base" >/dev/null
  rm -rf "$work/root"
}

# make NAME:TAG [FILE]...: images/NAME with the files beside its Dockerfile
make() {
  local image=devmesh-test/$1 context=$work/${1%%:*} content
  shift
  cp -r "images/$(basename "$context")" "$context"
  [ $# = 0 ] || cp "$@" "$context"
  content=$({
    "$docker" image inspect --format '{{.Id}}' "$base"
    cd "$context" && find . -type f -print0 | sort -z | xargs -0 sha256sum
  } | hash)
  [ "$(content "$image")" != "$content" ] || return 0
  echo "images: $image"
  cat >"$work/compose.yaml" <<YAML
services:
  image:
    image: $image
    build: {context: $context, args: {BASE: "$base"}, labels: {$label: "$content"}}
YAML
  "$docker" compose --progress quiet --project-name devmesh-test --file "$work/compose.yaml" build ||
    "$docker" compose --progress plain --project-name devmesh-test --file "$work/compose.yaml" build
}

make_base
make consul:1.8.7 "$consul"
make jaeger:2.13.0 "$tools/jaeger"
make prometheus:2.42.0
make postgres:15
make redis:7.0
make node:18
make curl:7.88
make tcpdump:4.99
"$docker" image prune --force --filter "label=$label" >/dev/null  # those that were made again
"$docker" image prune --force --all --filter label=dev.devmesh.content --filter until=24h >/dev/null  # devmesh of earlier sources

mkdir -p "$(dirname "$environment")"
cat >"$environment" <<ENVIRONMENT
export DEVMESH_PYTHON_IMAGE=$base
export DEVMESH_CONSUL_IMAGE=devmesh-test/consul:1.8.7
export DEVMESH_JAEGER_IMAGE=devmesh-test/jaeger:2.13.0
export DEVMESH_PROMETHEUS_IMAGE=devmesh-test/prometheus:2.42.0
export DEBIAN_IMAGE=$base
export POSTGRES_IMAGE=devmesh-test/postgres:15
export REDIS_IMAGE=devmesh-test/redis:7.0
export NODE_IMAGE=devmesh-test/node:18
export TCPDUMP_IMAGE=devmesh-test/tcpdump:4.99
export CURL_IMAGE=devmesh-test/curl:7.88
ENVIRONMENT
