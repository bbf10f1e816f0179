#!/usr/bin/env bash
# Make or bring up to date the virtual environment of this checkout.
#   scripts/setup.sh PYTHON VENV STAMP [EXTRA]
# STAMP becomes a copy of the pyproject.toml that was installed, so that the next call can see
# whether there is anything to do. Refuses a Python that is too old, with the fix.
set -euo pipefail

python=$1 venv=$2 stamp=$3 extra=${4:-}

if [ ! -x "$venv/bin/python" ]; then
    if ! command -v "$python" >/dev/null; then
        echo "setup: there is no \`$python\`; install Python 3.11 or later, or say PYTHON=/path/to/python" >&2
        exit 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "setup: \`$python\` is $("$python" --version 2>&1); Headrace needs 3.11 or later: say PYTHON=python3.12" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "setup: \`$python\` cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check)
# Dependency groups need pip 25.1.
if ! "${pip[@]}" --version 2>/dev/null | awk '{ split($2, v, "."); exit !(v[1] * 100 + v[2] >= 2501) }'; then
    "$venv/bin/python" -m ensurepip --upgrade >/dev/null 2>&1 || true
    "${pip[@]}" install --quiet --upgrade 'pip>=25.1'
fi
echo "setup: installing the dependencies${extra:+ and the $extra extra}"
"${pip[@]}" install --quiet --editable ".${extra:+[$extra]}" --group dev --group drivers
cp pyproject.toml "$stamp"
