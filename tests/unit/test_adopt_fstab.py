"""fstab with another mount point in it, and back."""

import pytest

from immud.adopt.fstab import WAS, moved
from immud.errors import ImmudError

FSTAB = """\
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
UUID=0a1b / ext4 errors=remount-ro 0 1
#UUID=old /home ext4 defaults 0 2
UUID=0a1c\t/home/\text4   defaults,nodev\t0 2   # the big one
/home /mnt/home none bind 0 0
"""


def test_only_the_mount_point_changes_and_the_old_line_is_kept() -> None:
    lines = moved(FSTAB, "/home", "/var/home").split("\n")
    assert lines[3] == WAS + FSTAB.split("\n")[3]
    assert lines[4] == "UUID=0a1c\t/var/home\text4   defaults,nodev\t0 2   # the big one"
    assert lines[:3] + lines[5:] == [*FSTAB.split("\n")[:3], *FSTAB.split("\n")[4:]]


def test_it_comes_back_as_it_was() -> None:
    assert moved(moved(FSTAB, "/home", "/var/home"), "/var/home", "/home") == FSTAB


def test_a_line_without_its_comment_comes_back_as_well() -> None:
    lines = moved(FSTAB, "/home", "/var/home").split("\n")
    del lines[3]
    back = moved("\n".join(lines), "/var/home", "/home")
    assert "UUID=0a1c\t/home\text4   defaults,nodev" in back


def test_a_source_that_is_named_like_the_mount_point() -> None:
    assert moved("/home /home none bind 0 0", "/home", "/var/home").endswith(
        "\n/home /var/home none bind 0 0"
    )


def test_odd_names_are_escaped() -> None:
    assert moved("x /a\\040b ext4", "/a b", "/var/a b").endswith("\nx /var/a\\040b ext4")


@pytest.mark.parametrize("text", ["", "a /home x\nb /home x\n"])
def test_a_line_that_is_not_there_or_twice_is_refused(text: str) -> None:
    with pytest.raises(ImmudError, match="lines for /home now"):
        moved(text, "/home", "/var/home")
