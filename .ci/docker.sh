#!/usr/bin/env bash
# A Docker engine with compose v2, and the images that the Docker tests run on; each is made only when missing.
#   .ci/docker.sh [FILE]   also writes the images' names to FILE (default: images.env beside the engine's data), to be sourced
#   .ci/docker.sh stop     ends the engine that this script started
# The engine's data lies in $DEVMESH_DOCKER_ROOT (default ~/.cache/devmesh-docker), so that a later run finds its images.
set -euo pipefail
cd "$(dirname "$0")"
root=${DEVMESH_DOCKER_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/devmesh-docker}
pid_file=$root/docker.pid
say() { printf 'docker: %s\n' "$1"; }
die() { printf 'docker: %s\n\nhint: %s\n' "$1" "$2" >&2; exit 1; }

# Other programs are called docker too (a system tray, for one), so a client is what calls itself one.
client() {
  local candidate
  while read -r candidate; do
    case $("$candidate" --version 2>/dev/null) in "Docker version"*) printf '%s\n' "$candidate"; return ;; esac
  done < <(type -ap docker)
}

# runs NAME FILE: whether the process whose number is in FILE is a NAME
runs() { [ -r "$2" ] && [ "$(cat "/proc/$(cat "$2")/comm" 2>/dev/null)" = "$1" ]; }

answers() { [ -n "$docker" ] && "$docker" info >/dev/null 2>&1; }

install_engine() {
  say "installing the engine"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null
  hash -r
}

start_engine() {
  if ! command -v dockerd >/dev/null; then
    install_engine
    docker=$(client)
    answers && return # where services are started, its package has started it
  fi
  docker=$(client)
  [ -n "$docker" ] || die "dockerd is here but no docker client is" "apt-get install docker.io"
  say "starting the engine, its data in $root"
  mkdir -p "$root"
  # A number that an ended engine wrote may be another process's by now, and would keep this one from starting.
  runs dockerd "$pid_file" || rm -f "$pid_file"
  runs containerd /run/docker/containerd/containerd.pid || rm -f /run/docker/containerd/containerd.pid
  setsid dockerd --data-root "$root/data" --pidfile "$pid_file" >"$root/dockerd.log" 2>&1 </dev/null &
  local pid=$! tries=0
  until answers; do
    kill -0 "$pid" 2>/dev/null || die "the engine ended: $(tail -n 1 "$root/dockerd.log")" "read $root/dockerd.log"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || die "the engine does not answer after 60 s" "read $root/dockerd.log"
    sleep 0.2
  done
}

# What a run that was ended left in this script's own engine would start again, and hold its ports.
forget_leftovers() {
  local left
  left=$("$docker" ps --all --quiet)
  # shellcheck disable=SC2086 # a list of ids
  [ -z "$left" ] || "$docker" rm --force --volumes $left >/dev/null
  "$docker" network prune --force >/dev/null
  "$docker" volume prune --force >/dev/null
}

stop_engine() {
  runs dockerd "$pid_file" || { say "no engine of this script runs"; return; }
  local pid
  pid=$(cat "$pid_file")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

# Debian bookworm has compose v1 only; trixie's v2 is one static binary.
install_compose() {
  "$docker" compose version >/dev/null 2>&1 && return
  local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins work
  say "installing compose v2"
  work=$(mktemp -d)
  ./debian-package.sh trixie docker-compose "$work"
  mkdir -p "$plugins"
  install -m 0755 "$work/usr/libexec/docker/cli-plugins/docker-compose" "$plugins/docker-compose"
  rm -rf "$work"
  "$docker" compose version
}

docker=$(client)
if [ "${1:-}" = stop ]; then stop_engine; exit; fi
if ! answers; then
  [ "$(id -u)" = 0 ] || die "no Docker engine answers" "start yours, or run .ci/docker.sh as root to get one"
  start_engine
  ! runs dockerd "$pid_file" || forget_leftovers
fi
install_compose
DOCKER=$docker ./images.sh "${1:-$root/images.env}"
