"""tmpfiles.d lines follow the links."""

from pathlib import Path

import pytest

from immud.early import tmpfiles

HOME = (("/home", "/var/home"),)
MOVED = (*HOME, ("/root", "/var/roothome"), ("/tmp", "/sysroot/tmp"))


@pytest.mark.parametrize(
    ("line", "followed"),
    [
        ("Q /home 0755 - - -", "Q /var/home 0755 - - -"),
        ("q\t/tmp  1777 root root 10d", "q\t/sysroot/tmp  1777 root root 10d"),
        ("x /tmp/systemd-private-%b-*", "x /sysroot/tmp/systemd-private-%b-*"),
        ("d- /root/.ssh :0700 root :root -", "d- /var/roothome/.ssh :0700 root :root -"),
        ('d "/home" 0755', 'd "/var/home" 0755'),
        ('d "/home/a b" 0755', 'd "/var/home/a b" 0755'),
        ("q /srv 0755 - - -", "q /srv 0755 - - -"),
        ("d /home2 0755", "d /home2 0755"),
        ("d /var/tmp 1777", "d /var/tmp 1777"),
        ("L /x - - - - /home", "L /x - - - - /home"),
        ("# Q /home 0755", "# Q /home 0755"),
        ("", ""),
        ("garbage", "garbage"),
    ],
)
def test_a_line_follows_its_own_path_only(line: str, followed: str) -> None:
    expected = {"a.conf": f"v /x\n{followed}\n"} if followed != line else {}
    assert tmpfiles.overrides(MOVED, {"a.conf": f"v /x\n{line}\n"}, {}) == expected


def test_a_file_of_the_administrator_is_never_replaced() -> None:
    vendor = {"home.conf": "Q /home 0755\nq /srv 0755\n"}
    admin = {"home.conf": "d /home 0711\n", "mine.conf": "x /home/keep\nx /elsewhere\n"}
    assert tmpfiles.overrides(HOME, vendor, admin) == {
        "immud.conf": "d /var/home 0711\nx /var/home/keep\n"
    }


def test_nothing_is_written_for_a_system_without_links(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/tmpfiles.d"
    place.mkdir(parents=True)
    (place / "home.conf").write_text("Q /home 0755\n")
    tmpfiles.write((), str(tmp_path))
    assert not (tmp_path / "run").exists()
    tmpfiles.write(HOME, str(tmp_path))
    written = tmp_path / "run/tmpfiles.d/home.conf"
    assert written.read_text() == "Q /var/home 0755\n"


def test_a_file_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/tmpfiles.d"
    place.mkdir(parents=True)
    (place / "gone.conf").symlink_to("/nowhere")
    (place / "odd.conf").write_bytes(b"# \xff\nQ /home 0755 \xfe\n")
    tmpfiles.write(HOME, str(tmp_path))
    assert (tmp_path / "run/tmpfiles.d/odd.conf").read_bytes() == b"# \xff\nQ /var/home 0755 \xfe\n"
    assert not (tmp_path / "run/tmpfiles.d/gone.conf").exists()
