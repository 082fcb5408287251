#!/usr/bin/env bash
# Three gateways behind nginx, over a PostgreSQL with a synchronous standby: on this machine, below the folder DIR.
#
#   layout.sh up DIR        start everything that does not run; ready when the command returns
#   layout.sh promote DIR   the primary is gone: the standby takes its place, for good
#   layout.sh rejoin DIR    make the server that was replaced the standby of the one that replaced it
#   layout.sh down DIR      stop everything; the data stays, and `up` goes on with it
#
# On machines of their own each part below belongs to one of them, and the addresses are theirs. There systemd
# starts the processes (docs/systemd.md), nginx has a certificate (docs/proxy.md), and `host` lines of pg_hba.conf
# say who may come. What else is set, such as the model, the gateways take from the environment.
set -euo pipefail
umask 077

LUNAR=${LUNAR:-lunar}
PG_BIN=${PG_BIN:-$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)")}
NGINX_PORT=${NGINX_PORT:-8480}
NODE_PORTS=(${NODE_PORTS:-8421 8422 8423})
DB1_PORT=${DB1_PORT:-5441}
DB2_PORT=${DB2_PORT:-5442}
PATIENCE=${PATIENCE:-60} # seconds that a part may take to become ready

# Does the process live whose number is in the file's first line?
alive() { [[ -f $1 && $(ps -o stat= -p "$(head -n 1 "$1")") == [!Z]* ]]; }

die() { echo "layout.sh: $*" >&2 && exit 1; }

# -- PostgreSQL: two machines -----------------------------------------------------------------------

# Run one of its programs; as root it refuses to work.
pg() {
  local as=()
  ((EUID)) || as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  (cd "$DIR/postgres" && PGPASSWORD=$(<password) exec "${as[@]}" "$PG_BIN/$1" "${@:2}")
}

# Which of the two is the primary is written down, and changed by `promote` alone. The other one is only ever
# started as a standby: two primaries are two histories.
primary() { cat "$DIR/postgres/primary"; }
standby() { [[ $(primary) == db1 ]] && echo db2 || echo db1; }
port() { [[ $1 == db1 ]] && echo "$DB1_PORT" || echo "$DB2_PORT"; }
is_standby() { [[ -f $DIR/postgres/$1/standby.signal ]]; }

sql() { pg psql -qX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(port "$(primary)")" -U postgres -c "$1" >/dev/null; }

running() { alive "$DIR/postgres/$1/postmaster.pid"; }

start_server() {
  running "$1" || pg pg_ctl -D "$1" -w -t "$PATIENCE" -l "$1.log" -o "-p $(port "$1")" start >/dev/null
}

prepare_postgres() {
  [[ -d $DIR/postgres ]] && return
  mkdir "$DIR/postgres"
  od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$DIR/postgres/password"
  echo db1 >"$DIR/postgres/primary"
  ((EUID)) || { chmod go+x "$DIR" && chown -R postgres: "$DIR/postgres"; }
}

make_primary() {
  pg initdb -D "$1" -U postgres --encoding=UTF8 --auth=scram-sha-256 --pwfile=password >/dev/null
  cat >>"$DIR/postgres/$1/postgresql.conf" <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_log_hints = on                  # pg_rewind can make a standby of a primary that was replaced
synchronous_commit = on             # acknowledged means: on the disks of both
idle_in_transaction_session_timeout = '10s'
tcp_keepalives_idle = 10            # a gateway whose machine is gone does not keep its connections
tcp_keepalives_interval = 5
tcp_keepalives_count = 3
SETTINGS
  start_server "$1"
  sql "create role lunar login password '$(<"$DIR/postgres/password")'"
  sql "create database lunar owner lunar"
}

start_primary() {
  local name
  name=$(primary)
  [[ -d $DIR/postgres/$name ]] || make_primary "$name"
  start_server "$name"
  is_standby "$name" || return 0
  pg pg_ctl -D "$name" -w -t "$PATIENCE" promote >/dev/null
  # Until a new standby is there, the one server acknowledges alone.
  sql "alter system reset synchronous_standby_names"
  sql "select pg_reload_conf()"
}

make_standby() { # a copy of the primary, and a slot there that keeps what it has not got yet
  local from
  from="host=127.0.0.1 port=$(port "$(primary)") user=postgres application_name=$1"
  sql "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '$1'"
  pg pg_basebackup -D "$1" -R -C -S "$1" -c fast -d "$from password=$(<"$DIR/postgres/password")"
}

start_standby() {
  local name
  name=$(standby)
  [[ -d $DIR/postgres/$name ]] || make_standby "$name"
  is_standby "$name" || {
    echo "$name was replaced, and is not started; to make it the standby: layout.sh rejoin $DIR" >&2
    return
  }
  start_server "$name"
  # Only now: with a name and nobody behind it no statement would ever be acknowledged.
  sql "alter system set synchronous_standby_names = 'FIRST 1 ($name)'"
  sql "select pg_reload_conf()"
}

promote_standby() {
  local name
  name=$(standby)
  is_standby "$name" || die "$name is no standby"
  # On machines of their own nobody can see this from here: cut the power of the old one, or its network.
  ! running "$(primary)" || die "the primary, $(primary), runs; stop it first"
  echo "$name" >"$DIR/postgres/primary"
  start_primary
}

rejoin_standby() {
  local name
  name=$(standby)
  ! is_standby "$name" && ! running "$name" || die "$name was not replaced, or it still runs"
  rm -rf "$DIR/postgres/$name.replaced"
  mv "$DIR/postgres/$name" "$DIR/postgres/$name.replaced" # what only it has was never acknowledged
  start_standby
}

# -- the gateways: three machines -------------------------------------------------------------------

ready() { # does the gateway on this port say that it serves?
  local status
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return
  printf 'GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
  read -r _ status _ <&3
  exec 3<&- 3>&-
  [[ $status == 200 ]]
} 2>/dev/null

start_node() {
  local name=node$1 port=${NODE_PORTS[$1]}
  alive "$DIR/$name.pid" && return
  local servers=127.0.0.1:$DB1_PORT,127.0.0.1:$DB2_PORT
  mkdir -p "$DIR/$name"
  LUNAR_STORE_URL="postgresql://lunar:$(<"$DIR/postgres/password")@$servers/lunar?target_session_attrs=read-write" \
    LUNAR_STORE__NODE=$name LUNAR_DATA_DIR=$DIR/$name LUNAR_HTTP__PORT=$port \
    LUNAR_HTTP__TRUSTED_PROXIES='[127.0.0.1]' \
    nohup "$LUNAR" run </dev/null >>"$DIR/$name.log" 2>&1 &
  echo $! >"$DIR/$name.pid"
}

wait_for_node() {
  local deadline=$((SECONDS + PATIENCE))
  until (ready "${NODE_PORTS[$1]}"); do
    alive "$DIR/node$1.pid" && ((SECONDS < deadline)) || {
      echo "node$1 is not ready; its last words:" >&2
      tail -n 5 "$DIR/node$1.log" >&2
      exit 1
    }
    sleep 0.2
  done
}

# -- nginx: one machine, or two with an address that moves ------------------------------------------

start_nginx() {
  alive "$DIR/nginx.pid" && return
  mkdir -p "$DIR/nginx"
  cat >"$DIR/nginx.conf" <<CONFIGURATION
pid $DIR/nginx.pid;
error_log $DIR/nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path $DIR/nginx/body;
    proxy_temp_path $DIR/nginx/proxy;
    fastcgi_temp_path $DIR/nginx/fastcgi;
    uwsgi_temp_path $DIR/nginx/uwsgi;
    scgi_temp_path $DIR/nginx/scgi;

    map \$http_upgrade \$connection_upgrade {
        default upgrade;
        ''      "";
    }

    upstream lunar {
        least_conn;    # WebSockets last: what counts is how many a gateway holds
$(printf '        server 127.0.0.1:%s max_fails=1 fail_timeout=2s;\n' "${NODE_PORTS[@]}")
    }

    upstream telegram { # webhooks: the parts of an album come to one node
$(printf '        server 127.0.0.1:%s max_fails=1 fail_timeout=2s;\n' "${NODE_PORTS[0]}")
$(printf '        server 127.0.0.1:%s backup;\n' "${NODE_PORTS[@]:1}")
    }

    server {
        listen 127.0.0.1:$NGINX_PORT;

        location /telegram/ {
            proxy_pass http://telegram;
            proxy_next_upstream error timeout http_503 non_idempotent;    # told twice, a message is stored once
        }

        location / {
            proxy_pass http://lunar;
            proxy_http_version 1.1;
            proxy_set_header Host \$http_host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection \$connection_upgrade;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto \$scheme;
            proxy_connect_timeout 2s;
            proxy_next_upstream error timeout http_503;    # 503: it is going down
            proxy_next_upstream_timeout 10s;
            proxy_read_timeout 1h;
        }
    }
}
CONFIGURATION
  PATH=$PATH:/usr/sbin nginx -e "$DIR/nginx.log" -c "$DIR/nginx.conf" -p "$DIR"
}

# -- all of it --------------------------------------------------------------------------------------

up() {
  mkdir -p "$DIR"
  prepare_postgres
  start_primary
  start_standby
  local node
  for node in "${!NODE_PORTS[@]}"; do start_node "$node"; done
  for node in "${!NODE_PORTS[@]}"; do wait_for_node "$node"; done
  start_nginx
}

end() { # a process: ask it, and wait until it is gone
  alive "$1" || return 0
  cp "$1" "$1.ending" # nginx removes its own
  kill "$(<"$1")"
  while alive "$1.ending"; do sleep 0.1; done
  rm -f "$1" "$1.ending"
}

down() {
  end "$DIR/nginx.pid"
  local node server
  for node in "${!NODE_PORTS[@]}"; do end "$DIR/node$node.pid"; done
  for server in "$(primary)" "$(standby)"; do
    if running "$server"; then pg pg_ctl -D "$server" -w -m fast stop >/dev/null; fi
  done
}

(($# == 2)) || { sed -n 's/^#   //p' "$0" >&2; exit 64; }
DIR=$(mkdir -p "$2" && cd "$2" && pwd)
case $1 in
  up) up ;;
  promote) promote_standby ;;
  rejoin) rejoin_standby ;;
  down) down ;;
  *) sed -n 's/^#   //p' "$0" >&2; exit 64 ;;
esac
