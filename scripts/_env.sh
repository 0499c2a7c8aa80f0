# Sourced by the scripts beside it. `environment EXTRAS` makes .venv in the repository, once, installs the
# project with those extras into it, and puts it on PATH. It needs Python >= 3.11 and a package index only.
# An unchanged pyproject.toml and the same extras make the next call a no-op.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment() {
    local extras=$1 venv=.venv stamp wanted
    PATH=${PATH//"$PWD/$venv/bin:"/} # activated, it would be taken for the Python outside, and it has no pip
    PYTHON=$(find_python)
    stamp="$venv/installed-${extras//,/-}"
    wanted="$(cksum < pyproject.toml) $PWD"
    if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
        echo "==> Setting up $venv (a few minutes the first time)"
        if [ ! -x $venv/bin/python ]; then
            if command -v uv > /dev/null; then
                uv venv --quiet --python "$PYTHON" $venv
            else
                "$PYTHON" -m venv --without-pip $venv # Debian's python3 lacks ensurepip
            fi
        fi
        pip_install -e ".[$extras]"
        echo "$wanted" > "$stamp"
    fi
    PATH="$PWD/$venv/bin:$PATH"
}

# Install packages into .venv, by the pip outside of it. Call `environment` first.
pip_install() {
    if command -v uv > /dev/null; then
        uv pip install --quiet --python .venv/bin/python "$@"
    else
        "$PYTHON" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check "$@"
    fi
}

# The first Python >= 3.11 on this machine; $PYTHON comes before the others.
find_python() {
    local python
    for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            "$python" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    echo "error: Python 3.11 or newer was not found; install it, or name one: PYTHON=/path/to/python3.12 $0" >&2
    return 1
}
