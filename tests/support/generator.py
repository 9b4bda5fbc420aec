"""The generator, run for real on a tree of files."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from immud.config.layout import SILVERBLUE
from immud.early.plan import BootPlan, encode

TOP = Path(__file__).parents[2]


GENERATOR = TOP / "units/immud-generator"


WANTS = "etc/systemd/system/local-fs.target.wants/immud.service"


CLONES = "home.mount opt.mount srv.mount root.mount usr-local.mount mnt.mount media.mount"


def bound(path: str) -> tuple[str, ...]:
    return (
        f"Description={path}, as immud.service mounts it",
        "DefaultDependencies=no",
        "After=immud.service",
        "[Mount]",
        f"What={path}",
        f"Where={path}",
        "Options=bind",
    )


OWN_VAR = {"var.mount": bound("/var")}


OWN_ETC = {"etc-immud.mount": bound("/etc/immud")}


USUAL = {"immud.service": (f"After={CLONES}",), **OWN_VAR}


SPARED = ("DefaultDependencies=no", "After=local-fs-pre.target")


FSTAB_VAR = "UUID=11-22 /var ext4 defaults 0 2\n"


class Machine:
    """A tree of files as the generator finds it at boot."""

    def __init__(self, root: Path) -> None:
        self.root = root / "root"
        self.normal = root / "normal"
        self.normal.mkdir()
        self.write("proc/cmdline", "root=/dev/sda1 ro quiet\n")
        self.write("etc/fstab", "# <file system>\nUUID=ab / ext4 errors=remount-ro 0 1\n\n")
        link = self.root / WANTS
        link.parent.mkdir(parents=True)
        link.symlink_to("/usr/lib/systemd/system/immud.service")

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def plan(self, path: str = "etc/immud/boot.plan", **values: object) -> Path:
        values.setdefault("configs", (("/etc/immud/immud.toml", b'[usr]\nusr\t/x\n"\n'),))
        return self.write(path, encode(BootPlan(rows=SILVERBLUE, **values)))  # type: ignore[arg-type]

    def fstab(self, text: str) -> None:
        self.write("etc/fstab", text)

    def generate(self, shell: str = "sh") -> Mapping[str, tuple[str, ...]]:
        """Run it; unit names, and what it says of each from [Unit] on."""
        place = str(self.normal)
        done = subprocess.run(
            [shell, GENERATOR, place, place, place, str(self.root)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout + done.stderr == ""
        found = {}
        for file in (*self.normal.glob("*.d/50-immud.conf"), *self.normal.glob("*.mount")):
            comment, section, *lines = file.read_text().splitlines()
            assert (comment[0], section) == ("#", "[Unit]")
            unit = file.name if file.suffix == ".mount" else file.parent.name.removesuffix(".d")
            found[unit] = tuple(lines)
        return found
