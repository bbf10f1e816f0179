#!/usr/bin/env bash
# Make or bring up to date the virtual environment of this checkout.
#   scripts/setup.sh PYTHON VENV STAMP ASKED [EXTRA] [GROUP]
# STAMP becomes a copy of the pyproject.toml that was installed; where it is one already, there is
# nothing to do. ASKED is not empty where somebody chose PYTHON: an environment of another Python is
# then made anew. Says in a line what is missing and how to mend it.
set -euo pipefail

python=$1 venv=$2 stamp=$3 asked=${4:-} extra=${5:-} group=${6:-}
base='import os, sys; print(os.path.realpath(sys._base_executable), sys.version)'

fail() {
    echo "setup: $1" >&2
    exit 1
}

if [ -n "$asked" ] && ! command -v "$python" >/dev/null; then
    fail "there is no \`$python\`; install Python 3.11 or later, or say PYTHON=/path/to/python"
fi
clear=
if [ -n "$asked" ] && [ -x "$venv/bin/python" ] &&
    [ "$("$python" -c "$base")" != "$("$venv/bin/python" -c "$base" 2>&1)" ]; then
    echo "setup: $venv was made with another Python and is made anew"
    clear=--clear
fi
if [ -z "$clear" ] && cmp -s pyproject.toml "$stamp"; then exit 0; fi

if [ -n "$clear" ] || [ ! -x "$venv/bin/python" ]; then
    if ! command -v "$python" >/dev/null; then
        fail "there is no \`$python\`; install Python 3.11 or later, or say PYTHON=/path/to/python"
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        fail "\`$python\` is $("$python" --version 2>&1); Headrace needs 3.11 or later: say PYTHON=python3.12"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        fail "\`$python\` cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv $clear "$venv"
fi

# One line for each package, so that a slow download can be told from one that hangs.
install() {
    "$venv/bin/python" -m pip --disable-pip-version-check install --progress-bar off "$@" |
        sed --unbuffered -nE 's/^ *((Collecting|Downloading|Building|Installing).{0,90}).*/  \1/p'
}
offline="the packages could not be installed (pip says above why); without network, set PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER to a folder of wheels"

# Dependency groups need pip 25.1.
if ! "$venv/bin/python" -m pip --version 2>/dev/null | awk '{ split($2, v, "."); exit !(v[1] * 100 + v[2] >= 2501) }'; then
    "$venv/bin/python" -m ensurepip --upgrade >/dev/null 2>&1 || true
    install --upgrade 'pip>=25.1' || fail "$offline"
fi
echo "setup: installing the dependencies${extra:+, the $extra extra}${group:+, the $group}"
install --editable ".${extra:+[$extra]}" --group dev ${group:+--group "$group"} || fail "$offline"
cp pyproject.toml "$stamp"
