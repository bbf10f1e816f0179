#!/usr/bin/env bash
# PostgreSQL, from Debian, ready for logical replication. As root it runs under its own user.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

binaries() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }
missing() {
    [ -n "$(binaries)" ] || { echo "\`postgresql\` is not installed"; return 0; }
    return 1
}
install() { packages postgresql; }
run() {
    local data="$1/data" as=()
    if [ "$(id -u)" -eq 0 ]; then
        # Its user must be able to reach a folder within folders of root's.
        as=(setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=+dac_override
            --ambient-caps=+dac_override)
        mkdir -p "$data"
        chmod 700 "$data"
        chown postgres "$data"
    fi
    cd /
    if [ ! -e "$data/PG_VERSION" ]; then
        "${as[@]}" "$(binaries)/initdb" -D "$data" -U postgres -A trust --no-sync -E UTF8 --locale=C >/dev/null
    fi
    # A killed server's note of its process must not keep the next one from starting.
    rm -f "$data/postmaster.pid"
    exec "${as[@]}" "$(binaries)/postgres" -D "$data" -h 127.0.0.1 -p "$2" -k '' \
        -c wal_level=logical -c max_wal_senders=10 -c max_replication_slots=10 -c wal_sender_timeout=5s
}
ready() { "$(binaries)/pg_isready" -q -U postgres -h 127.0.0.1 -p "$1"; }

serve "$@"
