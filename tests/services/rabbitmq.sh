#!/usr/bin/env bash
# RabbitMQ, from Debian, as a node of its own that no other node can meet.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

missing() { lacks rabbitmq-server erl; }
install() { packages rabbitmq-server; }
# Distribution listens below the range that tests are given ports from.
distribution() { echo $(($1 - 10000)); }
run() {
    local server
    server=$(echo /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server)
    [ -x "$server" ] || server=rabbitmq-server
    echo headrace >"$1/cookie" && chmod 600 "$1/cookie"
    export HOME=$1 RABBITMQ_BASE=$1 RABBITMQ_NODENAME="headrace$2@localhost"
    cp "$1/cookie" "$1/.erlang.cookie" && chmod 600 "$1/.erlang.cookie"
    export RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$2
    export RABBITMQ_DIST_PORT; RABBITMQ_DIST_PORT=$(distribution "$2")
    export RABBITMQ_MNESIA_BASE=$1/mnesia RABBITMQ_LOG_BASE=$1/log RABBITMQ_PID_FILE=$1/pid
    export RABBITMQ_ENABLED_PLUGINS_FILE=$1/plugins RABBITMQ_LOGS=- RABBITMQ_CONFIG_FILE=$1/rabbitmq
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+sbwt none +S 1:1 -start_epmd true"
    # As root Debian's wrapper would change to its own user, who may not write here.
    : >"$1/rabbitmq.conf"
    exec "$server"
}
ready() {
    # A broker answers a greeting it does not know with the one it does.
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'AMQP\x00\x00\x00\x00' >&3
    [ "$(timeout 2 head -c 4 <&3)" = AMQP ]
} 2>/dev/null

serve "$@"
