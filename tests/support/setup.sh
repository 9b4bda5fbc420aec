# Sourced by tests/run and tests/bench, after `cd` into the checkout: Debian's packages, the linters
# from PyPI, and $python to run with. $IMMUD_CACHE keeps what takes long to build.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 IMMUD_CACHE="${IMMUD_CACHE:-/var/cache/immud-tests}"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

say() { printf '# %s\n' "$*" >&2; }
give_up() { printf 'tests/%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || give_up 'this mounts, boots and installs; run it as root'
command -v apt-get >/dev/null || give_up 'the tools are installed with apt-get; use Debian 12 or 13'

missing=''
for package in $(grep -v '^#' tests/packages); do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || :)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2 || give_up 'apt-get update failed; its reason is above'
    # shellcheck disable=SC2086 # a list of names
    apt-get install -qq -y --no-install-recommends $missing >&2 </dev/null ||
        give_up 'apt-get could not install what the tests need; its reason is above'
fi

key=$( (cat tests/requirements.txt; /usr/bin/python3 -V) | sha256sum | cut -c1-16)
venv=$IMMUD_CACHE/venv-$key
if [ ! -e "$venv/complete" ]; then
    say 'installing the linters from PyPI'
    rm -rf "$venv"
    mkdir -p "$IMMUD_CACHE"
    /usr/bin/python3 -m venv --system-site-packages "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement tests/requirements.txt >&2 ||
        give_up 'pip could not install the linters; its reason is above'
    touch "$venv/complete"
fi

python=$venv/bin/python
