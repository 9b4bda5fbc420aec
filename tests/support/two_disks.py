"""The same small Debian with /var, or /home, on a disk of its own.

What happens on either disk is there at the next boot, and a power cut takes from both.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from immud.early import kernel, sources
from tests.support.filesystems import FORCE, SIZES, Machine, written

SOURCE = "LABEL=two"


class TwoDisks(Machine):
    """A machine where `at` is a file system of its own, which is mounted where fstab says."""

    def __init__(self, directory: str, fstype: str, var: str, at: str = "/var") -> None:
        self.at = at
        self.var = var
        self.var_image = f"{directory}/var"
        self.var_other = f"{directory}/var after a power cut"
        self.var_kept = f"{directory}/var to go back to"
        with open(self.var_image, "wb") as image:
            image.truncate(SIZES[var])
        make = [f"mkfs.{var}", FORCE[var], self.var_image]
        subprocess.run(make, check=True, capture_output=True)
        super().__init__(directory, fstype)
        self.namespaced(self._install)

    def _install(self) -> None:
        self.mount()
        install_tools(self.root)
        with open(f"{self.root}/etc/fstab", "a", encoding="utf-8") as fstab:
            fstab.write(f"{SOURCE} {self.at} {self.var} defaults 0 2\n")

    def mount(self) -> None:
        super().mount()
        where = self.root + self._where()
        os.makedirs(where, exist_ok=True)
        assert os.path.realpath(where) == where, "systemd does not mount through a link: emergency"
        self._var_disk = os.open(self.var_image, os.O_RDONLY)
        self._var_copy = os.open(self.var_other, os.O_RDWR | os.O_CREAT, 0o600)
        node, keep = sources.attach_loop(self.var_image, readonly=False)
        try:
            kernel.mount(node, where, self.var, 0)
        finally:
            os.close(keep)

    def _where(self) -> str:
        """The mount point in fstab, once there is one."""
        try:
            lines = Path(f"{self.root}/etc/fstab").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return self.at
        found = [line.split()[1] for line in lines if line.startswith(SOURCE)]
        return found[0] if found else self.at

    def power_cut(self) -> None:
        super().power_cut()
        written(self._var_disk, self._var_copy)

    def after_power_cut(self) -> None:
        super().after_power_cut()
        os.rename(self.var_other, self.var_image)

    def keep(self) -> None:
        super().keep()
        subprocess.run(["cp", "--sparse=always", self.var_image, self.var_kept], check=True)

    def back(self) -> None:
        super().back()
        subprocess.run(["cp", "--sparse=always", self.var_kept, self.var_image], check=True)

    def images(self) -> tuple[str, ...]:
        return (*super().images(), self.var_image)


def install_tools(root: str) -> None:
    """rsync(1), du(1) and the libraries they need, at the same paths as here."""
    tools = ("/usr/bin/rsync", "/usr/bin/du")
    said = subprocess.run(["ldd", *tools], check=True, capture_output=True, text=True)
    libraries = set(re.findall(r"[ \t](/\S+)", said.stdout))
    assert len(libraries) > 2, said.stdout
    for path in (*tools, *libraries):
        os.makedirs(Path(f"{root}{path}").parent, exist_ok=True)
        shutil.copy(path, f"{root}{path}")
