"""Packages for a machine to install: small ones of our own, and newer ones of what it has.

There is no network in a container. A newer version of an installed package is made from its
files and its own maintainer scripts, as dpkg-repack(1) does it: dpkg and apt cannot tell.
"""

from collections.abc import Mapping

from tests.support.container import Container

REPOSITORY = "/var/tmp/repository"

# repack SUFFIX PACKAGE...: what depends on exactly the old version of one of them depends on
# exactly the new one.
_REPACK = r"""
suffix=$1; shift
cd "$REPOSITORY"
for package; do
    version=$(dpkg-query -W -f '${Version}' "$package")
    echo "s/(= $version)/(= $version$suffix)/g"
done | sort -u >/tmp/versions
for package; do
    name=$(dpkg-query -W -f '${binary:Package}' "$package")
    tree=$(mktemp -d)
    mkdir "$tree/DEBIAN"
    dpkg-query -s "$package" | sed -e '/^Status:/d; /^Conffiles:/,/^[^ ]/{/^Conffiles:/d; /^ /d}' \
        -f /tmp/versions -e "s/^Version: .*/&$suffix/" >"$tree/DEBIAN/control"
    for script in preinst postinst prerm postrm triggers conffiles config templates; do
        for info in "/var/lib/dpkg/info/$name.$script" "/var/lib/dpkg/info/$package.$script"; do
            [ ! -e "$info" ] || cp -p "$info" "$tree/DEBIAN/$script"
        done
    done
    # A diverted file is packed under its own name; what dpkg was told to leave out is not there.
    # In Debian 12 packages have files below /lib and its like, which are links there.
    dpkg-query -L "$package" | grep -v '^diverted\|^/\.$\|^package diverts' >/tmp/files
    while read -r path; do
        if [ -L "$path" ] && grep -q "^$path/" /tmp/files; then continue; fi
        [ ! -e "$path" ] && [ ! -L "$path" ] || echo "${path#/}"
    done </tmp/files |
        tar -C / -c --no-recursion -T - | tar -C "$tree" -x
    dpkg-deb -Znone --root-owner-group -b "$tree" "$REPOSITORY" >/dev/null
    rm -rf "$tree"
done
"""

_INDEX = r"""
cd "$REPOSITORY"
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" \
        "$(sha256sum "$deb" | cut -d' ' -f1)"
done >Packages
echo "deb [trusted=yes] file:$REPOSITORY ./" >/etc/apt/sources.list
rm -rf /etc/apt/sources.list.d/*
apt-get -q update
"""


def shell(machine: Container, script: str, *arguments: str, timeout: float = 300) -> str:
    """Run a script of this file's, or one about the repository."""
    told = f"set -e; REPOSITORY={REPOSITORY}; mkdir -p $REPOSITORY; {script}"
    return machine.run("sh", "-ec", told, "sh", *arguments, timeout=timeout).stdout


def repack(machine: Container, *packages: str, suffix: str = "+newer") -> None:
    """Put newer versions of installed packages into the repository."""
    shell(machine, _REPACK, suffix, *packages)


def make(
    machine: Container, name: str, files: Mapping[str, str], version: str = "1", **control: str
) -> None:
    """Put a package of these files into the repository: path and text; DEBIAN/... are its own."""
    tree = f"/var/tmp/tree-{name}"
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "Somebody <somebody@example.org>",
        "Description": "for a test",
    }
    text = "".join(f"{key}: {value}\n" for key, value in fields.items())
    for path, content in {"DEBIAN/control": text, **files}.items():
        script = path.startswith("DEBIAN/") and content.startswith("#!")
        machine.run(
            *("sh", "-ec", 'mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"', "sh"),
            *(f"{tree}/{path}", "755" if script else "644"),
            input=content,
        )
    shell(machine, f"dpkg-deb -Znone --root-owner-group -b {tree} $REPOSITORY; rm -r {tree}")


def publish(machine: Container) -> None:
    """Make what is in the repository known to apt, and nothing else."""
    shell(machine, _INDEX)
