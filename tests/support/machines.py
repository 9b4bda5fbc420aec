"""Machines as people have them: adopted and enabled, and with a tomb configured.

Each is made once, in a booted container, by the command a person would use; see `prepared`.
"""

from tests.support import image
from tests.support.container import Container, prepared
from tests.support.drive import PASSPHRASE
from tests.support.image import Image

HOME_UUID = "6d6d7564-0000-4000-8000-686f6d650001"
"""The LUKS UUID of the drive that `with_tomb` knows."""


def adopted(below: Image | None = None) -> Image:
    """`below` (Debian 13 with the package installed), adopted and enabled: immutable from its
    next boot on."""
    return prepared(below or image.installed(), "adopted-trixie", "adopting the layout", _adopt)


def with_tomb(below: Image | None = None) -> Image:
    """`adopted` with the home tomb configured: by its LUKS UUID, and a key file."""
    return prepared(adopted(below), "tomb-trixie", "configuring a tomb", _configure_tomb)


def _adopt(container: Container) -> None:
    container.run("immud", "adopt")
    container.run("immud", "enable")


def _configure_tomb(container: Container) -> None:
    container.run("mkdir", "-p", "/etc/immud/keys")
    container.run("sh", "-c", "umask 077; cat >/etc/immud/keys/home", input=PASSPHRASE)
    table = f'[tomb.home]\nuuid = "{HOME_UUID}"\nkey = "/etc/immud/keys/home"\n'
    container.run("sh", "-c", "cat >/etc/immud/immud.toml", input=table)
    container.run("immud", "enable")
