#!/bin/sh
# Makes .venv with mien, every extra and the developers' tools, at the versions and hashes of requirements.lock.
# A second run with nothing changed only compares one stamp.
set -eu
cd "$(dirname "$0")"

stamp=.venv/.mien-installed
# The place belongs to it: the commands of a virtual environment that was moved or copied run those of where it was made.
place=$(pwd -P)
want="$(cat requirements.lock pyproject.toml setup.sh | cksum) $place"
if [ -x .venv/bin/mien ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ]; then
    echo "setup: .venv is up to date"
    exit 0
fi

fits='import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))'
python=
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c "$fits" >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3.12 sh setup.sh" >&2
    exit 2
fi

if ! grep -qsF "$place/.venv" .venv/bin/activate || ! .venv/bin/python -c "$fits" >/dev/null 2>&1 ||
    ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "setup: $python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    fi
fi
rm -f "$stamp"

# uv reads the lock in seconds where pip takes minutes; it comes from the same lock, by hash.
uv_version=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
    awk '/^uv==/ {on = 1; print; next} /^[^ ]/ {on = 0} on' requirements.lock > .venv/uv.lock.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock.txt
fi

echo "setup: installing the locked packages into .venv (once; about 3.6 GB to download)"
VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip sync --require-hashes --link-mode copy requirements.lock
VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
# The first import of a large package compiles it; once here, on all cores, rather than in the middle of the first
# command. What only extras and tools import can wait until it is wanted.
.venv/bin/python -m compileall -q -j 0 -x '/(transformers|ray|pandas|sklearn|gradio|onnx[a-z]*|mypy|pip|setuptools)/' \
    .venv/lib >/dev/null 2>&1 || true
printf '%s\n' "$want" > "$stamp"
echo "setup: done"
