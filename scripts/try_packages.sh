#!/usr/bin/env bash
# Try the packages in a folder in a bare environment of every Python at hand, 3.11 to 3.14.
#   scripts/try_packages.sh DIST
# The wheel is installed on each, the sdist on the first; each then passes the tests of a new project,
# and the first its strict types as well. Fails where a package does, or where no Python was found.
set -euo pipefail

dist=$(cd "$1" && pwd)
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
limit=120
tried=0

# An interpreter of a version, if one runs: from PATH, or of pyenv's versions.
find_python() {
    local candidate
    for candidate in "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ -n "$candidate" ] && "$candidate" -c "import sys, ensurepip, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

try() {
    local python=$1 package=$2 name=$3 place=$room/$3
    "$python" -m venv "$place"
    timeout "$limit" "$place/bin/python" -m pip --disable-pip-version-check install --quiet "${package}[test]"
    (
        cd "$room"
        "$place/bin/headrace" new shop --in "shop-$name" >/dev/null
        cd "shop-$name"
        timeout "$limit" "$place/bin/python" -m pytest -q
        timeout "$limit" "$place/bin/headrace" validate >/dev/null
    )
}

wheel=$(ls "$dist"/*.whl | tail -n 1)
sdist=$(ls "$dist"/*.tar.gz | tail -n 1)
readmes=$(tar -tzf "$sdist" | grep -c 'README.md$' || true)
if [ "$readmes" -ne 1 ]; then
    echo "packages: the sdist holds $readmes README.md; it should hold one" >&2
    exit 1
fi
for version in 3.11 3.12 3.13 3.14; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "packages: Python $version is not here: left out"
        continue
    fi
    echo "packages: the wheel on Python $version ($python)"
    try "$python" "$wheel" "wheel-$version"
    if [ "$tried" -eq 0 ]; then
        echo "packages: the sdist on Python $version, with strict types"
        try "$python" "$sdist" "sdist-$version"
        types=$room/sdist-$version/bin/python
        timeout "$limit" "$types" -m pip --disable-pip-version-check install --quiet mypy
        (cd "$room/shop-sdist-$version" && timeout "$limit" "$types" -m mypy)
    fi
    tried=$((tried + 1))
done
if [ "$tried" -eq 0 ]; then
    echo "packages: no Python from 3.11 to 3.14 with venv was found" >&2
    exit 1
fi
