#!/usr/bin/env bash
# Mosquitto (MQTT 3.1.1 and 5), from Debian. Sessions are on the disk after every message.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

missing() { lacks mosquitto; }
install() { packages mosquitto; }
run() {
    cat >"$1/mosquitto.conf" <<CONF
listener $2 127.0.0.1
allow_anonymous true
persistence true
persistence_location $1/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
user $(id -un)
CONF
    exec mosquitto -c "$1/mosquitto.conf"
}
ready() { opens "$1"; }

serve "$@"
