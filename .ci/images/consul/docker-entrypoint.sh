#!/bin/sh
# What hashicorp/consul's entrypoint does: subcommands become consul's, an agent gets its directories and gives up root.
set -eu
if [ "${1#-}" != "$1" ]; then set -- consul "$@"; fi
if [ "$1" = agent ]; then
    shift
    set -- consul agent -data-dir=/consul/data -config-dir=/consul/config "$@"
elif [ "$1" = version ] || consul --help "$1" 2>&1 | grep -q "consul $1"; then
    set -- consul "$@"
fi
if [ "$1" = consul ] && [ "$(id -u)" = 0 ]; then
    chown consul:consul /consul/data /consul/config
    exec setpriv --reuid consul --regid consul --init-groups "$@"
fi
exec "$@"
