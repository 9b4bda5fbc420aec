"""What apt was told, taken back where a file system is read-only."""

from pathlib import Path

from immud.early import kernel
from immud.enable import apt
from tests.support.namespaces import in_namespace
from tests.unit.test_cli import UNIT, immud


@in_namespace
def test_a_link_that_cannot_be_removed_keeps_nothing_from_being_disabled(tmp_path: Path) -> None:
    for place in ("usr/lib/systemd/system", "usr/local/sbin", "etc/apt/apt.conf.d", "etc/immud"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/immud.service").write_text(UNIT)
    (tmp_path / "etc/immud/boot.plan").touch()
    assert apt.enable("lease", str(tmp_path)) == ""
    usr = str(tmp_path / "usr")
    kernel.mount(usr, usr, None, kernel.MS_BIND)
    kernel.mount_setattr(usr, set_=kernel.MOUNT_ATTR_RDONLY)
    link = tmp_path / "usr/local/sbin/dpkg"
    told = immud("disable", "--root", str(tmp_path))
    assert (told.returncode, told.stdout.split(".")[0]) == (0, "Disabled")
    assert "/usr/local/sbin/dpkg could not be removed (Read-only file system)" in told.stderr
    assert link.is_symlink()
    assert not (tmp_path / "etc/immud/boot.plan").exists()
    assert apt.mode(str(tmp_path)) == ""
    assert "could not be removed" in apt.enable("refuse", str(tmp_path))
    assert apt.mode(str(tmp_path)) == "refuse"
    kernel.mount_setattr(usr, clear=kernel.MOUNT_ATTR_RDONLY)
    assert apt.disable(str(tmp_path)) == ""
    assert not link.is_symlink()
