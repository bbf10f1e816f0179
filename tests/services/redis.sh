#!/usr/bin/env bash
# Redis, from Debian. Every write is on the disk before it is answered.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

missing() { lacks redis-server redis-cli; }
install() { packages redis-server; }
run() {
    exec redis-server --bind 127.0.0.1 --port "$2" --dir "$1" --save '' \
        --appendonly yes --appendfsync always --daemonize no
}
ready() { [ "$(redis-cli -h 127.0.0.1 -p "$1" ping 2>/dev/null)" = PONG ]; }

serve "$@"
