# Sourced by demo.sh and test.sh.

# as_root COMMAND..
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_packages NAME..: of Debian or Ubuntu, installed where they lack; elsewhere what needs them says so.
need_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || return 0
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "page4d: installing ${missing[*]}" >&2
    as_root apt-get update -qq && as_root apt-get install -y -qq "${missing[@]}" >/dev/null
}

# make_environment FOLDER [ARGUMENT..]: a virtual environment in which `pip install ARGUMENT..` was run.
make_environment() {
    local folder=$1 python=${PYTHON:-python3}
    shift
    if ! command -v "$python" >/dev/null; then
        echo "page4d: $python was not found; install Python 3.10 or newer, or set PYTHON" >&2
        return 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "page4d: $("$python" --version) is too old; Python 3.10 or newer is needed (set PYTHON)" >&2
        return 1
    fi
    if [ ! -x "$folder/bin/python" ]; then
        if ! "$python" -c 'import ensurepip' 2>/dev/null; then # Debian and Ubuntu keep it in a package of its own
            echo "page4d: this Python cannot make virtual environments; installing python3-venv" >&2
            as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv
        fi
        "$python" -m venv "$folder"
    fi
    [ $# -gt 0 ] || return 0
    "$folder/bin/python" -m pip install --quiet --upgrade pip
    "$folder/bin/python" -m pip install --quiet --no-compile "$@" # most of it is never imported
}
