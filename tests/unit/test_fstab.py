"""fstab(5), as libmount reads it: one reader for boot, enable and adopt."""

from pathlib import Path

import pytest

from immud.adopt.declared import in_fstab
from immud.adopt.fstab import moved
from immud.early.observe import fstab_fields, fstab_targets
from immud.enable import fstab

ODD = r"/dev/sdb1 /mnt/a\b ext4 noauto 0 0"


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\134040b", r"/a\040b"),  # an escaped backslash begins nothing
        (r"/gr\303\274n", "/grün"),  # a byte each
        (r"/a\b", r"/a\b"),
        (r"/a\04", r"/a\04"),
        (r"/a\777", r"/a\777"),
        ("/a\\", "/a\\"),
    ],
)
def test_escapes(field: str, meant: str) -> None:
    assert fstab_fields(f"what {field} ext4") == ["what", meant, "ext4"]


@pytest.mark.parametrize("line", ["", "  ", "# /dev/sda1 /home ext4", "   #x /y ext4"])
def test_lines_without_a_mount(line: str) -> None:
    assert fstab_fields(line) == []


def test_an_odd_backslash_keeps_nobody_from_booting_or_enabling(tmp_path: Path) -> None:
    path = tmp_path / "fstab"
    path.write_text(f"{ODD}\nUUID=1 /var ext4 defaults 0 2")
    assert fstab_targets(str(path)) == (r"/mnt/a\b", "/var")
    assert [line.where for line in fstab.read(str(path))] == [r"/mnt/a\b", "/var"]
    assert [declared.where for declared in in_fstab(path.read_text())] == [r"/mnt/a\b", "/var"]
    assert "LABEL=two /var/home xfs" in moved(f"{ODD}\nLABEL=two /home xfs", "/home", "/var/home")
