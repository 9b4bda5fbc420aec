# Sourced, after `cd` into the checkout: where commands are looked for, how one gives up, and
# install_packages [TAG], which installs what is missing of tests/packages (with TAG: of the lines
# that carry it).

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 IMMUD_CACHE="${IMMUD_CACHE:-/var/cache/immud-tests}"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

say() { printf '# %s\n' "$*" >&2; }
give_up() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

install_packages() {
    [ "$(id -u)" = 0 ] || give_up 'this mounts, boots and installs; run it as root'
    command -v apt-get >/dev/null || give_up 'the tools are installed with apt-get; use Debian 12 or 13'
    missing=''
    for package in $(grep '^[a-z]' tests/packages | grep "${1+ $1}\$" | cut -d' ' -f1); do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || :)
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2 || give_up 'apt-get update failed; its reason is above'
    # shellcheck disable=SC2086 # a list of names
    apt-get install -qq -y --no-install-recommends $missing >&2 </dev/null ||
        give_up 'apt-get could not install what is needed; its reason is above'
}
