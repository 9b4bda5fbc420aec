"""One ext4 disk in a file: copied, looked into, and changed while nothing runs on it.

Every mount is made in a mount namespace of its own that ends with the command: the host's
mount table is never touched, and the loop device goes with the last user of the mount
(`LO_FLAGS_AUTOCLEAR`, set by mount(8)).
"""

import os
import shutil
import tempfile
from pathlib import Path

from tests.support import cache
from tests.support.process import Completed, run

_INSIDE = """
set -e
mount --make-rprivate /
mount -o loop "$1" "$2"
mount -t proc proc "$2/proc"
mount -t sysfs -o ro sysfs "$2/sys"
mount -t tmpfs -o mode=755 tmpfs "$2/run"
mount --bind /dev "$2/dev"
root=$2; shift 2
exec env -i PATH="$PATH" HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$root" "$@"
"""

_BESIDE = """
set -e
mount --make-rprivate /
mount -o loop "$1" "$2"
script=$3; cd "$2"; shift 3
sh -ec "$script" sh "$@"
cd /
umount "$OLDPWD"
"""


class Disk:
    """An ext4 file system in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def copy(self, path: Path) -> "Disk":
        """A copy at `path`, as sparse as this one and sharing blocks where the store can."""
        run("cp", "--reflink=auto", "--sparse=auto", str(self.path), str(path), timeout=300)
        return Disk(path)

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: bytes | str = b"",
        timeout: float = 120,
    ) -> Completed:
        """Run `argv` natively on the disk, in a chroot with proc, sys, dev and an empty run."""
        with tempfile.TemporaryDirectory(dir=cache.scratch()) as point:
            return run(
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", _INSIDE, "sh", str(self.path), point, *argv),
                check=check,
                input=input,
                timeout=timeout,
            )

    def beside(self, script: str, *arguments: str, timeout: float = 120) -> Completed:
        """Run the host's `sh` `script` in the disk's root directory, without a chroot."""
        with tempfile.TemporaryDirectory(dir=cache.scratch()) as point:
            return run(
                *("unshare", "--mount", "sh", "-c", _BESIDE, "sh"),
                *(str(self.path), point, script, *arguments),
                timeout=timeout,
            )

    def read(self, path: str) -> str:
        """The text in the file `path` of the disk."""
        return self.run("cat", path).stdout

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Put `text` in the file `path` of the disk, directories on the way included."""
        script = 'mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"'
        self.run("sh", "-ec", script, "sh", path, f"{mode:o}", input=text)


def temporary_copy(disk: Disk, name: str) -> Disk:
    """A copy that lives for one test; `discard` removes it."""
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache.scratch()))
    return disk.copy(place / "disk.ext4")


def discard(disk: Disk) -> None:
    """Remove a temporary copy and the directory that was made for it."""
    shutil.rmtree(disk.path.parent)


def create(path: Path, size: int) -> Disk:
    """A new, empty ext4 disk of `size` bytes, sparse."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
    run("mkfs.ext4", "-q", "-F", "-L", "debian", str(path))
    return Disk(path)
