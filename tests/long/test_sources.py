"""/usr, /etc and /var from elsewhere in every combination, some of them a run, on both Debians."""

import itertools
import random
from pathlib import Path

import pytest

from tests.support import image, machines
from tests.support.drive import Drive, plain
from tests.support.vm import VM
from tests.vm.test_boot import immutable

SEED = 102
BOOTS = 4

SOURCES = {
    "usr": ("", f"UUID={machines.USR_UUID}", "/var/data/usr.erofs", "LABEL=data:/tree"),
    "etc": ("", "LABEL=data:/etc", "/persist"),
    "var": ("", "LABEL=data:/deep/er/var", "fstab"),
}

VAR_IN_FSTAB = """
mount LABEL=var /run/new -o X-mount.mkdir
cp -a --one-file-system /var/. /run/new
umount /run/new
echo 'LABEL=var /var ext4 defaults 0 2' >>/etc/fstab
"""

DATA_IN_FSTAB = """
mkdir -p /var/data
echo 'LABEL=data /var/data ext4 defaults 0 2' >>/etc/fstab
systemctl daemon-reload
mount /var/data
"""

TREE = """
mount LABEL=data /run/data -o X-mount.mkdir
cp -a /usr /run/data/tree
echo image >/run/data/tree/origin
umount /run/data
"""


def combinations() -> list[tuple[str, str, str]]:
    """Those of this seed; a file system below /var can't hold /usr where /var itself moves."""
    every = [
        (usr, etc, var)
        for usr, etc, var in itertools.product(*SOURCES.values())
        if (usr or etc or var) and not (usr.startswith("/var/") and var)
    ]
    return random.Random(SEED).sample(every, BOOTS)  # noqa: S311 - to be the same in each run


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
@pytest.mark.parametrize(("usr", "etc", "var"), combinations())
def test_a_combination(suite: str, usr: str, etc: str, var: str, tmp_path: Path) -> None:
    installed = image.installed(suite)
    content = tmp_path / "content"
    content.mkdir()
    made = machines.usr_image(installed, content / "usr.erofs")
    drives = [
        plain(tmp_path / "data", label="data", size=4 << 30, content=content, serial="D1"),
        plain(tmp_path / "var", label="var", serial="D2"),
        Drive(made, machines.USR_UUID, "", "D3"),
    ]
    with VM(installed) as machine:
        machine.boot(drives=drives)
        machine.wait_until(f"cd /dev/disk; ls by-label/data by-label/var by-uuid/{drives[2].uuid}")
        if usr.startswith("/var/"):
            machine.shell(DATA_IN_FSTAB)
        if usr.endswith("/tree"):
            machine.shell(TREE, timeout=600)
        if var == "fstab":
            machine.shell(VAR_IN_FSTAB, timeout=300)
        given = (("usr", usr), ("etc", etc), ("var", "" if var == "fstab" else var))
        text = "".join(f'[{name}]\nsource = "{source}"\n' for name, source in given if source)
        machine.run("tee", "/etc/immud/immud.toml", input=text)
        machine.shell("mkdir -p /persist; immud adopt; immud enable --seed", timeout=300)

        machine.reboot(drives=drives)
        immutable(machine)
        assert machine.succeeds("test", "-e", "/usr/origin") == bool(usr)
        assert machine.succeeds("test", "-e", "/etc/.immud") == bool(etc)
        assert machine.succeeds("test", "-e", "/var/.immud") == (var not in ("", "fstab"))
        machine.shell("echo kept >/etc/kept; echo kept >/var/kept")
        assert "FAILED" not in machine.reboot(drives=drives)
        immutable(machine)
        assert machine.run("cat", "/etc/kept", "/var/kept").stdout == "kept\nkept\n"
        if var != "fstab":
            # A /var from fstab goes before the journal's end, with immud or without.
            assert machine.messages("-b", "-1")[-1] == "Journal stopped"
