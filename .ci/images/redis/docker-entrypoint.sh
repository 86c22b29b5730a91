#!/bin/sh
# What the official image does: arguments alone are redis-server's, and it gives up root.
set -eu
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- redis-server "$@"; fi
if [ "$1" = redis-server ]; then
    shift
    # The official image is compiled with protected mode off and knows no /etc/redis/redis.conf.
    set -- redis-server "$@" --protected-mode no
    if [ "$(id -u)" = 0 ]; then
        chown redis:redis .
        exec setpriv --reuid redis --regid redis --init-groups "$@"
    fi
fi
exec "$@"
