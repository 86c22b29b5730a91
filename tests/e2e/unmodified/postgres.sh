# PostgreSQL refuses to run as root: then it is the user postgres, as in its image.
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
data=$(mktemp -d)
run() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown postgres "$data"
  run() { exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
fi
(run "$bin/initdb" --pgdata="$data" --auth=trust --username=postgres >/dev/null)
echo "host all all all trust" >>"$data/pg_hba.conf"
run "$bin/postgres" -D "$data" -c "listen_addresses=*" -c "unix_socket_directories=$data"
