"""What is done to the header of a tomb, on a drive that cryptsetup made."""

import asyncio
import os
import re
import stat
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from immud.cli import header as cli
from immud.early import kernel
from immud.errors import ImmudError, TargetExists, UsageError, WrongKey
from immud.make import header, secret
from immud.make.find import has_header, only
from immud.model import TombConfig
from immud.run import run
from immud.tomb.luks import identity
from immud.watch.devices import Device
from tests.kernel.test_make import CHEAP, KEY, drive, luks
from tests.support.namespaces import in_namespace


def opens(node: str, key: bytes) -> bool:
    """Whether cryptsetup, asked on its own, opens the volume with `key`."""
    command = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", node]
    return subprocess.run(command, input=key, capture_output=True, check=False).returncode == 0


def test_a_key_is_changed_and_the_pin_stays(tmp_path: Path) -> None:
    new = b"any byte but these: \x00\xff\n"
    with drive(tmp_path / "image") as node:
        luks(node)
        pin = identity.of(node)
        with pytest.raises(WrongKey):
            asyncio.run(header.change_key(node, b"wrong", new, CHEAP))
        assert opens(node, KEY)
        asyncio.run(header.change_key(node, KEY, new, CHEAP))
        assert opens(node, new)
        assert not opens(node, KEY)
        asyncio.run(header.fits(node, new))
        with pytest.raises(WrongKey):
            asyncio.run(header.fits(node, KEY))
        assert identity.of(node) == pin


def test_a_recovery_key_opens_the_volume(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        luks(node)
        pin = identity.of(node)
        with pytest.raises(WrongKey):
            asyncio.run(header.add_recovery_key(node, b"wrong"))
        made = asyncio.run(header.add_recovery_key(node, KEY))
        assert re.fullmatch(header.RECOVERY_KEY, made)
        assert opens(node, made.encode())
        assert opens(node, KEY)
        assert identity.of(node) == pin
        dump = subprocess.run(["cryptsetup", "luksDump", node], capture_output=True, check=True)
        assert b"systemd-recovery" in dump.stdout
        with pytest.raises(ImmudError, match="That is a recovery key"):
            asyncio.run(header.change_key(node, made.encode(), b"new", CHEAP))
        assert opens(node, made.encode())


def test_a_recovery_key_that_nobody_saw_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive(tmp_path / "image") as node:
        luks(node)
        made = asyncio.run(header.add_recovery_key(node, KEY))
        monkeypatch.setattr(header, "RECOVERY_KEY", "(?!)")  # as if it were printed in another way
        with pytest.raises(ImmudError, match="did not print") as refused:
            asyncio.run(header.add_recovery_key(node, KEY))
        slots = asyncio.run(header._slots(node))
        command = str(refused.value).partition("again: ")[2].split()
        subprocess.run([*command], input=KEY, check=True, capture_output=True)
        assert len(asyncio.run(header._slots(node))) == len(slots) - 1
        assert opens(node, made.encode())
        assert opens(node, KEY)


def test_luks1_has_no_recovery_keys(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        command = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1", "--key-file", "-"]
        subprocess.run([*command, "--pbkdf-force-iterations", "1000", node], input=KEY, check=True)
        with pytest.raises(ImmudError, match="cryptsetup convert"):
            asyncio.run(header.add_recovery_key(node, KEY))
        asyncio.run(header.change_key(node, KEY, b"new", CHEAP[2:]))
        assert opens(node, b"new")


@in_namespace
def test_a_backup_is_whole_private_and_elsewhere(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    kernel.mount("tmpfs", str(other), "tmpfs", 0)
    file = other / "header"
    with drive(tmp_path / "image") as node:
        luks(node)
        os.umask(0)
        asyncio.run(header.back_up(node, str(file)))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert identity.of(str(file)) == identity.of(node)
        assert os.listdir(other) == ["header"]
        assert header.in_memory(str(file))
        before = file.read_bytes()
        with pytest.raises(TargetExists, match="another name"):
            asyncio.run(header.back_up(node, str(file)))
        assert file.read_bytes() == before
        with pytest.raises(ImmudError, match="make it first"):
            asyncio.run(header.back_up(node, str(other / "missing" / "header")))
        # It can be put back, and then opens as before.
        subprocess.run(["wipefs", "--quiet", "--all", node], check=True)
        restore = ["cryptsetup", "luksHeaderRestore", "--batch-mode", node]
        subprocess.run([*restore, "--header-backup-file", str(file)], check=True)
        assert opens(node, KEY)


@in_namespace
def test_a_backup_goes_to_no_other_file_by_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, victim = tmp_path / "theirs", tmp_path / "victim"
    theirs.mkdir()
    victim.write_text("as it was")
    victim.chmod(0o644)

    async def then_links(*command: str) -> object:
        done = await run(*command)
        for name in {*os.listdir(theirs), ".header.new"}:
            (theirs / name).unlink(missing_ok=True)
            (theirs / name).symlink_to(victim)
        return done

    monkeypatch.setattr(header, "run", then_links)
    with drive(tmp_path / "image") as node:
        luks(node)
        asyncio.run(header.back_up(node, str(theirs / "header")))
        assert identity.of(str(theirs / "header")) == identity.of(node)
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("as it was", 0o644)
    assert os.listdir(theirs) == ["header"]


@pytest.mark.parametrize("names", [("by-id", "by-partuuid"), ("by-id",), ()])
def test_where_to_put_a_backup_back_does_not_depend_on_what_is_plugged_in_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
) -> None:
    with drive(tmp_path / "image") as node:
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "a").symlink_to("/dev/null")
            (tmp_path / name / "gone").symlink_to("/dev/gone")
            (tmp_path / name / "its own").symlink_to(node)
        found = header.lasting_name(node, str(tmp_path))
        assert found == (f"{tmp_path}/{names[-1]}/its own" if names else "")

        async def nothing(*_: object) -> None:
            pass

        device = Device("", node, "")
        monkeypatch.setattr(cli, "_found", lambda *_: (TombConfig("home", uuid="x"), device))
        monkeypatch.setattr(header, "back_up", nothing)
        monkeypatch.setattr(header, "lasting_name", lambda _: found)
        cli.header_backup(Namespace(file="/a place/header"))
        command, *more = capsys.readouterr().out.split("luksHeaderRestore ")[1].splitlines()
        which = f"'{found}'" if names else "DEVICE"
        assert command == f"{which} --header-backup-file '/a place/header'"
        what = f"DEVICE is {node} now, on the drive {os.path.basename(node)} "
        assert what in "".join(more) or names


@in_namespace
def test_a_backup_on_the_drive_itself_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with drive(tmp_path / "image") as node:
        subprocess.run(["mkfs.ext4", "-q", node], check=True)
        kernel.mount(node, str(place), "ext4", 0)
        try:
            assert not header.in_memory(str(place / "header"))
            with pytest.raises(ImmudError, match="would be lost with it"):
                asyncio.run(header.back_up(node, str(place / "header")))
            assert os.listdir(place) == ["lost+found"]
        finally:
            kernel.umount2(str(place))


def test_a_key_on_its_way_is_in_no_file_and_gone_afterwards() -> None:
    with secret.passed(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        assert os.readlink(path).startswith("/memfd:")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        held = os.open(path, os.O_RDONLY)
    try:
        assert not os.path.exists(path)
        assert os.read(held, 10) == b"\0\0\0"
    finally:
        os.close(held)


@pytest.mark.parametrize(("sent", "got"), [(b"a\n", b"a"), (b"a\n\n", b"a\n"), (b"\0 ", b"\0 ")])
def test_one_line_break_at_the_end_is_no_part_of_a_key(sent: bytes, got: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, sent)
    os.close(writing)
    try:
        assert secret.from_fd(reading) == got
        with pytest.raises(UsageError, match="no key"):
            secret.from_fd(reading)
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("tomb", "said"),
    [
        (TombConfig("bare", uuid="x", encrypted=False), "no keys, and no header"),
        (TombConfig("dyne", uuid="x", file="/a.tomb"), r"/a\.tomb on its drive.*see tomb\(1\)"),
    ],
)
def test_what_has_no_header_of_its_own(tomb: TombConfig, said: str) -> None:
    with pytest.raises(ImmudError, match=said):
        has_header(tomb)


def test_which_drive_is_meant() -> None:
    tomb = TombConfig("home", label="twin")
    one = Device("/devices/a", "/dev/sda", "8:0", fs_type="crypto_LUKS", label="twin")
    two = Device("/devices/b", "/dev/sdb", "8:16", fs_type="crypto_LUKS", label="twin")
    assert only(tomb, [one]) is one
    with pytest.raises(ImmudError, match="plug it in"):
        only(tomb, [])
    with pytest.raises(ImmudError, match="/dev/sda, /dev/sdb"):
        only(tomb, [two, one])
