#!/usr/bin/env bash
# NATS with JetStream, from Debian.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

missing() { lacks nats-server; }
install() { packages nats-server; }
run() { exec nats-server --addr 127.0.0.1 --port "$2" --jetstream --store_dir "$1"; }
# The server speaks first: a line that begins with INFO.
ready() { says "$1" INFO; }

serve "$@"
