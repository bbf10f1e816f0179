# What every service script here offers; source it, define four functions, end with `serve "$@"`.
#
#   NAME.sh missing            ends with 0 and says what is missing where it cannot run here
#   NAME.sh install            brings what is missing from the system's packages (as root or by sudo)
#   NAME.sh run FOLDER PORT    the server in the foreground, its data in FOLDER, on 127.0.0.1:PORT
#   NAME.sh ready PORT         ends with 0 once the server on PORT answers
#
# Tests start servers of their own by `run`, on free ports, and kill them as they like.

lacks() {
    local name found=1
    for name in "$@"; do
        if ! command -v "$name" >/dev/null; then
            echo "\`$name\` is not installed"
            found=0
        fi
    done
    return "$found"
}

# Install system packages without letting them start a service of their own.
packages() {
    local sudo="" policy=/usr/sbin/policy-rc.d made=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod +x "$policy"
        made=yes
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
    [ -z "$made" ] || $sudo rm -f "$policy"
}

# What a server on the JVM needs: java, and the jars in $jars that `resolve` has brought.
lacks_jars() {
    lacks java && return 0
    [ -e "$jars/complete" ] && return 1
    echo "${0##*/}: the jars are not in $jars"
}

# Bring `group:artifact:version` and all it needs at run time into $jars; further lines of the POM on
# standard input.
resolve() {
    local wanted=() group artifact version
    IFS=: read -r group artifact version <<<"$1"
    command -v java >/dev/null || wanted+=(default-jre-headless)
    command -v mvn >/dev/null || wanted+=(maven)
    [ "${#wanted[@]}" -eq 0 ] || packages "${wanted[@]}"
    mkdir -p "$jars"
    cat >"$jars/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>headrace</groupId><artifactId>$artifact-for-tests</artifactId><version>1</version>
  <packaging>pom</packaging>
$(cat)
  <dependencies><dependency>
    <groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version>
  </dependency></dependencies>
</project>
POM
    mvn --quiet --batch-mode --file "$jars/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$jars"
    touch "$jars/complete"
}

opens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Whether the server on port $1 greets with a line that begins with $2.
says() {
    local line=""
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    read -r -t 2 line <&3 || return 1
    [[ $line == "$2"* ]]
} 2>/dev/null

serve() {
    local command=${1:-}
    case $command in
        missing) missing ;;
        install)
            if missing >/dev/null; then install; fi
            if missing; then exit 1; fi
            ;;
        run)
            mkdir -p "$2"
            run "$(realpath "$2")" "$3"
            ;;
        ready) ready "$2" ;;
        *)
            echo "usage: $0 missing | install | run FOLDER PORT | ready PORT" >&2
            exit 2
            ;;
    esac
}
