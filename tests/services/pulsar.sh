#!/usr/bin/env bash
# Apache Pulsar, broker and bookie in one process, from the jars its project publishes; needs Java 17.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

version=3.0.7
jars=${XDG_CACHE_HOME:-$HOME/.cache}/headrace-tests/pulsar-$version

missing() { lacks_jars; }
install() {
    # Without the versions that its parent fixes, resolving takes minutes.
    resolve "org.apache.pulsar:pulsar-broker:$version" <<POM
  <dependencyManagement><dependencies><dependency>
    <groupId>org.apache.pulsar</groupId><artifactId>pulsar</artifactId><version>$version</version>
    <type>pom</type><scope>import</scope>
  </dependency></dependencies></dependencyManagement>
POM
}
run() {
    local opens=() package
    for package in java.base/java.io java.base/java.nio java.base/sun.net java.base/jdk.internal.misc \
        java.base/jdk.internal.platform java.management/sun.management; do
        opens+=(--add-opens "$package=ALL-UNNAMED")
    done
    cat >"$1/broker.conf" <<CONF
clusterName=tests
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
brokerServicePort=$2
webServicePort=$(($2 - 10000))
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
managedLedgerCursorBackloggedThreshold=1000
loadBalancerEnabled=false
defaultNumberOfNamespaceBundles=1
brokerDeleteInactiveTopicsEnabled=false
brokerShutdownTimeoutMs=100
numIOThreads=2
numOrderedExecutorThreads=2
journalMaxGroupWaitMSec=1
allowLoopback=true
CONF
    cd "$1"
    exec java -Xmx768m -XX:MaxDirectMemorySize=512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${opens[@]}" \
        -Dio.netty.tryReflectionSetAccessible=true -Dorg.apache.bookkeeper.conf.readsystemproperties=true \
        -cp "$jars/*" org.apache.pulsar.PulsarStandaloneStarter --config "$1/broker.conf" \
        --no-functions-worker --no-stream-storage --advertised-address 127.0.0.1 \
        --metadata-dir "$1/metadata" --bookkeeper-dir "$1/bookie" --bookkeeper-port $(($2 - 15000))
}
# The port is open before there is a namespace to publish in.
ready() {
    local line=""
    exec 3<>"/dev/tcp/127.0.0.1/$(($1 - 10000))" || return 1
    printf 'GET /admin/v2/namespaces/public/default HTTP/1.0\r\n\r\n' >&3
    read -r -t 2 line <&3 || return 1
    [[ $line == *" 200 "* ]] && opens "$1"
} 2>/dev/null

serve "$@"
