"""Machines as people have them: adopted and enabled, and with a tomb configured.

Each is made once, in a booted container, by the command a person would use; see `prepared`.
"""

from pathlib import Path

from tests.support import image
from tests.support.container import Container, prepared
from tests.support.disk import discard, temporary_copy
from tests.support.drive import PASSPHRASE
from tests.support.image import Image
from tests.support.vm import booted

HOME_UUID = "6d6d7564-0000-4000-8000-686f6d650001"
"""The LUKS UUID of the drive that `with_tomb` knows."""
USR_UUID = "6d6d7564-0000-4000-8000-757372000001"
"""The UUID of the file system that `usr_image` makes."""


def adopted(below: Image | None = None) -> Image:
    """`below` (Debian 13 with the package installed), adopted and enabled: immutable from its
    next boot on."""
    below = below or image.installed()
    return prepared(below, f"adopted-{suite(below)}", "adopting the layout", _adopt)


def suite(of: Image) -> str:
    """`trixie` or `bookworm`: the release a machine has."""
    return of.key.split("-")[1]


def with_tomb(below: Image | None = None) -> Image:
    """`adopted` with the home tomb configured: by its LUKS UUID, and a key file."""
    return prepared(adopted(below), "tomb-trixie", "configuring a tomb", _configure_tomb)


def usr_image(of: Image, path: Path) -> Path:
    """Make an erofs image of a machine's own /usr at `path`; a file `origin` in it says `image`."""
    disk = temporary_copy(of.disk, "usr")
    try:
        make = 'echo image >usr/origin; mkfs.erofs --quiet -zlz4 "-U$1" "$2" usr'
        disk.beside(make, USR_UUID, str(path), timeout=300)
    finally:
        discard(disk)
    return path


def make_ahead() -> None:
    """Build what the tests are going to ask for, in the order in which they do."""
    booted(with_tomb(), "tomb-trixie")
    booted(image.installed(), "installed-trixie")
    adopted(image.installed("bookworm"))


def _adopt(container: Container) -> None:
    container.run("immud", "adopt")
    container.run("immud", "enable")


def _configure_tomb(container: Container) -> None:
    container.run("mkdir", "-p", "/etc/immud/keys")
    container.run("sh", "-c", "umask 077; cat >/etc/immud/keys/home", input=PASSPHRASE)
    table = f'[tomb.home]\nuuid = "{HOME_UUID}"\nkey = "/etc/immud/keys/home"\n'
    container.run("sh", "-c", "cat >/etc/immud/immud.toml", input=table)
    container.run("immud", "enable")


if __name__ == "__main__":
    make_ahead()
