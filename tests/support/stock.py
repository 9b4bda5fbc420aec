"""A small tree that looks like a stock Debian's, on a file system of its own.

For the kernel tier: `stock_root(directory)` makes an ext4 image of it and mounts
it, in the caller's private namespace. Loop devices clear themselves.
"""

import os
import subprocess
from pathlib import Path

from immud.early import kernel, sources

FSTAB = "# stock\nUUID=abcd / ext4 errors=remount-ro 0 1\n"
DIRECTORIES = (
    "bin boot dev etc/immud etc/systemd/system home/alice media mnt opt proc root run srv sys "
    "tmp usr/bin usr/lib/systemd/system usr/local/bin usr/local/share var/lib var/log var/opt"
)
FILES = {
    "etc/fstab": FSTAB,
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "home/alice/letter": "dear alice\n",
    "root/.bashrc": "# dot file\n",
    "usr/bin/true": "",
    "usr/local/bin/mine": "#!/bin/sh\n",
}


def stock_tree(root: Path) -> None:
    """The directories and files of a stock system below `root`."""
    for name in DIRECTORIES.split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)


def stock_image(directory: Path, size: str = "64M") -> Path:
    """An ext4 image of the stock tree."""
    tree = directory / "tree"
    stock_tree(tree)
    image = directory / "stock.ext4"
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-d", str(tree), str(image), size], check=True, timeout=60
    )
    return image


def mount_image(image: Path, where: Path) -> None:
    """Mount an ext4 image, writable, at `where`, made if it is missing.

    Only in a private mount namespace; the loop device goes with the mount.
    """
    where.mkdir(exist_ok=True)
    node, keep = sources.attach_loop(str(image), readonly=False)
    try:
        kernel.mount(node, str(where), "ext4", 0)
    finally:
        os.close(keep)


def stock_root(directory: Path) -> Path:
    """A mounted stock tree, with /run and /dev as a booted system has them."""
    where = directory / "root"
    mount_image(stock_image(directory), where)
    kernel.mount("tmpfs", str(where / "run"), "tmpfs", 0, "mode=755")
    kernel.mount("/dev", str(where / "dev"), None, kernel.MS_BIND)
    return where
