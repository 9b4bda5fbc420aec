# Sourced by tests/run and tests/bench, after `cd` into the checkout: Debian's packages, the linters
# from PyPI, and $python to run with. $IMMUD_CACHE keeps what takes long to build.

. tests/support/packages.sh
install_packages

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
