#!/bin/sh
# Install the peers the suite is measured against, beside the project and out of its way.
#
# Everything lands in .venv-peers/ at the top of the checkout, except Redis, which comes as a system
# package. Of that, only `redis-tools` is taken: it holds the server's binary (which of its programs
# it is depends on the name it is started by) without the service that would start by itself.
# Run it again after a change; what is there already is kept.
set -eu
cd "$(dirname "$0")/../.."
peers=.venv-peers

if ! command -v redis-server >/dev/null 2>&1 && [ ! -x /usr/bin/redis-check-rdb ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: \`redis-tools\` is missing and only root may install it; run: sudo apt-get install redis-tools" >&2
        exit 1
    fi
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends redis-tools
fi

# The HTTP client of row 16; the programs that need it are skipped where it is missing.
if ! command -v wrk >/dev/null 2>&1; then
    if [ "$(id -u)" -eq 0 ]; then
        apt-get install -qq -y --no-install-recommends wrk || { apt-get update -qq && apt-get install -qq -y --no-install-recommends wrk; }
    else
        echo "setup: \`wrk\` is missing, so HTTP calls will not be measured; run: sudo apt-get install wrk" >&2
    fi
fi

uv=$(command -v uv || echo .venv/bin/uv)
[ -x "$peers/bin/python" ] || "$uv" venv --quiet --python "$(readlink -f .venv/bin/python)" "$peers"
"$uv" pip install --quiet --python "$peers/bin/python" -r bench/peers/requirements.txt

command -v redis-server >/dev/null 2>&1 || ln -sf /usr/bin/redis-check-rdb "$peers/bin/redis-server"

# BullMQ is the one peer in another language; it is left out where there is no node.
if command -v npm >/dev/null 2>&1; then
    [ -d "$peers/node/node_modules/bullmq" ] || npm install --silent --no-audit --no-fund --prefix "$peers/node" bullmq@5
fi
echo "setup: the peers are in $peers/"
