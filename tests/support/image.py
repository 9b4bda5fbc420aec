"""Debian disks: built by mmdebstrap, cached, with the package installed natively.

`base("trixie")` is a stock Debian as an installer would leave it; `installed("trixie")` is the
same with the .deb of this checkout in it. One disk serves containers and virtual machines.
Everything is keyed by what it is made of, so a stale image is never used.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support import cache
from tests.support.cache import CHECKOUT, digest
from tests.support.disk import Disk, create
from tests.support.process import HarnessError, run
from tests.support.stages import stage

VERSION = "3"
"""Goes up when the way a disk is built changes, and nothing else in its key does."""

SIZE = 4 << 30

PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "polkitd", "kmod"),
    *("adduser", "passwd", "login", "procps", "iproute2", "apt", "apparmor"),
    *("python3", "python3-pystemd", "python3-dbus-next", "python3-pyudev", "python3-structlog"),
    *("cryptsetup-bin", "dmsetup", "e2fsprogs", "fdisk", "gnupg", "erofs-utils", "rsync"),
    *("linux-image-amd64", "initramfs-tools", "qemu-guest-agent"),
)
BY_SUITE = {
    "bookworm": ("systemd-userdbd",),
    # tomb is Dyne's, and argon2 what it stretches passphrases with where asked to; drives over
    # the network; and what systemd talks to a TPM with
    "trixie": (
        *("systemd-cryptsetup", "systemd-userdbd", "tomb", "argon2", "f2fs-tools"),
        *("nbd-client", "nbd-server"),
        *("libtss2-esys-3.0.2-0t64", "libtss2-rc0t64", "libtss2-mu-4.0.1-0t64"),
        "libtss2-tcti-device0t64",
    ),
}

# What a virtual machine's disk needs in order to be found: a small initramfs, for TCG's sake.
_MODULES = ("virtio_pci", "virtio_blk", "ext4")

# Before the packages: what must be there when the kernel's postinst builds the initramfs. A
# server that exports nothing fails at each boot.
_EARLY = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/dpkg/dpkg.cfg.d" "$1/etc/systemd/system"
ln -s /dev/null "$1/etc/systemd/system/nbd-server.service"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/small"
printf '%s\\n' {modules} >"$1/etc/initramfs-tools/modules"
"""

# After them: what an installer and a year of use leave behind.
_LATE = """
rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/99mmdebstrap"
echo debian >"$1/etc/hostname"
printf '127.0.0.1 localhost\\n127.0.1.1 debian\\n' >"$1/etc/hosts"
rm -f "$1/etc/resolv.conf" && : >"$1/etc/resolv.conf"
uuid=$(findmnt -n -o UUID -T "$1")
echo "UUID=$uuid / ext4 errors=remount-ro 0 1" >"$1/etc/fstab"
chroot "$1" adduser --quiet --disabled-password --gecos Alice alice
echo alice:alice | chroot "$1" chpasswd
echo root:root | chroot "$1" chpasswd
mkdir -p "$1/home/alice/Documents" "$1/opt/vendor/bin" "$1/srv/www" "$1/root/.ssh"
echo 'a letter' >"$1/home/alice/Documents/letter.txt"
chown -R 1000:1000 "$1/home/alice"
echo 'alias ll="ls -l"' >"$1/root/.bash_aliases"
chmod 700 "$1/root/.ssh"; echo key >"$1/root/.ssh/authorized_keys"
chmod 600 "$1/root/.ssh/authorized_keys"
printf '#!/bin/sh\\necho vendor\\n' >"$1/opt/vendor/bin/tool"; chmod 755 "$1/opt/vendor/bin/tool"
echo '<p>hello</p>' >"$1/srv/www/index.html"
printf '#!/bin/sh\\necho local\\n' >"$1/usr/local/bin/greet"; chmod 755 "$1/usr/local/bin/greet"
"""


@dataclass(frozen=True)
class Image:
    """A disk that is never written to again: copy it, or put an overlay over it.

    `kernel` and `initrd` are its own, outside of it so that QEMU can boot them directly.
    `key` names what it was made of.
    """

    key: str
    disk: Disk
    kernel: Path
    initrd: Path


def _mirrors(suite: str) -> list[str]:
    """apt sources for `suite`, from where this machine's own Debian comes.

    The machine's own release is replaced by `suite` in each of its sources of Debian.
    """
    own = ""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            own = line.partition("=")[2].strip('"')
    listed = run(
        *("apt-get", "indextargets", "--format"),
        *("$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"),
    ).stdout.splitlines()
    found: list[str] = []
    for place, release, component in (line.split() for line in listed):
        if component == "main" and release in (own, f"{own}-updates", f"{own}-security"):
            found.append(f"deb {place} {release.replace(own, suite)} main")
    if not found:
        raise HarnessError(
            "apt on this machine has no source of Debian's own packages; "
            "add one to /etc/apt/sources.list.d and run apt-get update"
        )
    return sorted(set(found))


def image_at(place: Path) -> Image:
    """The image in the directory `place` of the cache."""
    return Image(place.name, Disk(place / "disk.ext4"), place / "vmlinuz", place / "initrd.img")


def base(suite: str = "trixie", extra: tuple[str, ...] = ()) -> Image:
    """A stock Debian of `suite` with alice and her files, and `extra` packages.

    Passwords are `root` and `alice`. Files are in /home/alice, /root, /opt, /srv and
    /usr/local/bin, so that every row of the layout has something to keep.
    """
    packages = (*PACKAGES, *BY_SUITE[suite], *extra)
    early = _EARLY.format(modules=" ".join(_MODULES))

    def build(aside: Path) -> None:
        disk = create(aside / "disk.ext4", SIZE)
        script = """
            mirrors=$1; out=$2; early=$3; late=$4; suite=$5; include=$6
            mmdebstrap --quiet --mode=root --variant=minbase --include="$include" \
                --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' \
                --essential-hook="$early" --customize-hook="$late" "$suite" . "$mirrors"
            cp -L vmlinuz "$out/vmlinuz"; cp -L initrd.img "$out/initrd.img"
            chroot . systemd-machine-id-setup
            fstrim .
        """
        disk.beside(
            *(script, "\n".join(_mirrors(suite)), str(aside), early, _LATE, suite),
            ",".join(packages),
            timeout=1200,
        )
        run("e2fsck", "-fp", str(disk.path))

    key = digest(VERSION, suite, early, _LATE, *packages)
    return image_at(cache.entry(f"base-{suite}", key, f"building a Debian disk ({suite})", build))


@functools.cache
def package() -> Path:
    """The .deb of this checkout, as packaging/build leaves it; built when anything changed."""
    with stage("building the package"):
        printed = run(str(CHECKOUT / "packaging" / "build"), timeout=600).stdout
    return Path(printed.splitlines()[-1])


def installed(suite: str = "trixie", extra: tuple[str, ...] = ()) -> Image:
    """`base(suite, extra)` with the package of this checkout installed, as dpkg leaves it."""
    below = base(suite, extra)
    deb = package()

    def build(aside: Path) -> None:
        _derive(below, aside)
        disk = Disk(aside / "disk.ext4")
        disk.write("/var/tmp/immud.deb", deb.read_bytes())
        disk.run("dpkg", "--force-unsafe-io", "-i", "/var/tmp/immud.deb", timeout=300)
        disk.run("rm", "/var/tmp/immud.deb")

    key = digest(VERSION, below.key, deb)
    what = f"installing the package ({suite})"
    return image_at(cache.entry(f"installed-{suite}", key, what, build))


def _derive(below: Image, aside: Path) -> None:
    """Fill `aside` with a copy of `below`."""
    below.disk.copy(aside / "disk.ext4")
    os.link(below.kernel, aside / "vmlinuz")
    os.link(below.initrd, aside / "initrd.img")
