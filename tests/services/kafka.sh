#!/usr/bin/env bash
# Apache Kafka as one KRaft node, from the jars its project publishes; needs Java 17.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

version=4.1.1
jars=${XDG_CACHE_HOME:-$HOME/.cache}/headrace-tests/kafka-$version

missing() { lacks_jars; }
install() { resolve "org.apache.kafka:kafka_2.13:$version" </dev/null; }
run() {
    local controller=$(($2 - 10000))
    local java=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*")
    cat >"$1/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$2
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$1/log
num.partitions=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.flush.interval.messages=1
CONF
    "${java[@]}" kafka.tools.StorageTool format --ignore-formatted \
        --cluster-id aGVhZHJhY2V0ZXN0cy0xMQ --config "$1/server.properties"
    exec "${java[@]}" kafka.Kafka "$1/server.properties"
}
ready() { opens "$1"; }

serve "$@"
