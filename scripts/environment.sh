# Sourced by demo.sh, test.sh and scripts/lock.sh.
# shellcheck disable=SC2034 # variables are for those who source it

TEST_EXTRAS=export,kernels,gpu,rtx,ray,video,heic,viewer,rerun,bags,test # what test.sh installs, and scripts/lock.sh locks
# the C++ runtime: compilers for this CPU and for ARM, what runs programs of the latter, libraries it is built with, those
# its examples read images with, what other programs find it by
TEST_PACKAGES="g++ g++-aarch64-linux-gnu qemu-user-static nlohmann-json3-dev libeigen3-dev libpng-dev pkg-config ccache"
# the viewer's tests look at its page in a browser; Ubuntu has this one only outside of its packages
if command -v apt-cache >/dev/null && ! command -v google-chrome >/dev/null && [ -r /etc/debian_version ] &&
    ! grep -qi ubuntu /etc/os-release; then
    TEST_PACKAGES+=" chromium"
fi

# need_packages [NAME..]: of Debian or Ubuntu. Root installs what is missing; anybody else is told the command, and it
# fails. On other systems it does nothing: what needs them says so.
need_packages() {
    local name missing=()
    command -v dpkg-query >/dev/null || return 0
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "page4d: packages are missing; install them and start again:" >&2
        echo "  sudo apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "page4d: installing ${missing[*]}" >&2
    update_lists && apt-get -o DPkg::Lock::Timeout=300 install -y -qq "${missing[@]}" >/dev/null
}

# update_lists: apt's package lists. DPkg::Lock::Timeout does not wait for their lock, which a daily update holds.
update_lists() {
    local output deadline=$((SECONDS + 300))
    until output=$(LC_ALL=C apt-get update -qq 2>&1); do
        if [[ $output != *"Could not get lock"* || $SECONDS -ge $deadline ]]; then
            echo "$output" >&2
            return 1
        fi
        sleep 5
    done
}

# venv_package FOLDER: the package that is missing to make a virtual environment there, if any: Debian and Ubuntu keep
# it apart from Python.
venv_package() {
    local python=${PYTHON:-python3}
    if [ -x "$1/bin/python" ] || ! command -v "$python" >/dev/null; then return; fi
    "$python" -c 'import ensurepip' 2>/dev/null || echo "${python##*/}-venv"
}

# make_environment FOLDER ARGUMENT..: a virtual environment in which `pip install ARGUMENT..` was run.
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
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --upgrade pip
    "$folder/bin/python" -m pip install --quiet --no-compile "$@" # most of it is never imported
}
