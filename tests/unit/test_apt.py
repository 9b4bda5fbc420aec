"""What enable tells apt, and disable takes back."""

from pathlib import Path

import pytest

from immud.enable import apt


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in ("etc/apt/apt.conf.d", "usr/local/sbin"):
        (tmp_path / place).mkdir(parents=True)
    return tmp_path


def conf(root: Path) -> str:
    return (root / "etc/apt/apt.conf.d/90immud").read_text()


def test_a_mode_stays_until_another_is_asked_for(root: Path) -> None:
    link = root / "usr/local/sbin/dpkg"
    assert apt.mode(str(root)) == ""
    assert apt.enable("", str(root)) == ""
    assert apt.mode(str(root)) == "lease"
    assert 'Dir::Bin::dpkg "/usr/lib/immud/dpkg";' in conf(root)
    assert str(link.readlink()) == apt.WRAPPER
    apt.enable("refuse", str(root))
    apt.enable("", str(root))
    assert apt.mode(str(root)) == "refuse"
    assert "Dir::Bin" not in conf(root)
    assert "dpkg-guard refuse" in conf(root)
    assert not link.is_symlink()
    apt.enable("lease", str(root))
    apt.disable(str(root))
    assert not link.is_symlink()
    assert list((root / "etc/apt/apt.conf.d").iterdir()) == []
    apt.disable(str(root))


def test_somebody_else_s_dpkg_stays_and_it_is_said(root: Path) -> None:
    link = root / "usr/local/sbin/dpkg"
    link.write_text("theirs")
    assert "plain dpkg needs 'immud unlock'" in apt.enable("lease", str(root))
    apt.disable(str(root))
    assert link.read_text() == "theirs"


def test_a_system_without_apt_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert apt.enable("lease", str(tmp_path)) == ""
    apt.disable(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["etc"]
