"""Headers that cryptsetup made, read through its library; no device-mapper is needed for that."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.errors import ImmudError
from immud.tomb import header, identity
from immud.tomb.pin import differences
from tests.support.drive import PASSPHRASE, Drive, luks

Make = Callable[..., Drive]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's /etc or /run is touched."""
    monkeypatch.setattr(identity, "DIRECTORY", str(tmp_path / "etc" / "tombs"))
    monkeypatch.setattr(header, "DIRECTORY", str(tmp_path / "run" / "header"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str, **options: object) -> Drive:
        return luks(tmp_path / name, size=24 << 20, **options)  # type: ignore[arg-type]

    return make


def cryptsetup(*arguments: str, given: bytes = PASSPHRASE) -> str:
    done = subprocess.run(["cryptsetup", *arguments], input=given, check=True, capture_output=True)
    return done.stdout.decode()


@pytest.mark.parametrize("version", [1, 2])
def test_the_pin_survives_a_new_passphrase_and_no_new_volume(make: Make, version: int) -> None:
    drive = make("drive", version=version)
    pin = identity.of(str(drive.path))
    assert (pin.uuid, pin.cipher) == (drive.uuid, "aes-xts-plain64")
    cost = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    (drive.path.parent / "new").write_bytes(b"another")
    cryptsetup("luksAddKey", *cost, str(drive.path), str(drive.path.parent / "new"))
    cryptsetup("luksChangeKey", *cost, str(drive.path), str(drive.path.parent / "new"))
    assert identity.of(str(drive.path)) == pin
    twin = make("twin", version=version, uuid=drive.uuid)
    assert differences(pin, identity.of(str(twin.path))) == ("its volume key is another one",)


def test_a_header_rewritten_to_no_cipher_is_refused(make: Make) -> None:
    drive = make("drive")
    rewrite(drive.path, b'"aes-xts-plain64","sector_size"', b'"cipher_null-ecb","sector_size"')
    assert "cipher_null-ecb" in cryptsetup("luksDump", str(drive.path))
    with pytest.raises(ImmudError, match=r"not encrypted \(cipher_null-ecb\)"):
        identity.of(str(drive.path))


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Change the LUKS2 metadata, and its checksums, in both copies of it."""
    import hashlib  # noqa: PLC0415

    with path.open("r+b") as file:
        for start in (0, 16384):
            file.seek(start)
            area = bytearray(file.read(16384))
            assert area.count(old) == 1
            assert len(old) == len(new)
            area[:] = area.replace(old, new)
            area[448:512] = bytes(64)
            area[448:480] = hashlib.sha256(area).digest()
            file.seek(start)
            file.write(area)


def test_metadata_of_any_size_is_read(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 64 << 20)
    cryptsetup(
        *("luksFormat", "--batch-mode", "--type", "luks2", "--luks2-metadata-size", "4m"),
        *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", str(path)),
    )
    assert identity.of(str(path)).type == "LUKS2"


def test_the_copy_opens_what_the_drive_opens(make: Make) -> None:
    for version in (1, 2):
        drive = make(f"drive{version}", version=version)
        with header.copied(str(drive.path), "home") as copy:
            copy.complete()
            assert copy.path == header.path("home")
            assert os.stat(copy.path).st_mode & 0o777 == 0o600
            assert os.stat(copy.path).st_blocks * 512 < 1 << 20, "only what is in use is copied"
            cryptsetup("open", "--test-passphrase", "--key-file", "-", copy.path)
            before = cryptsetup("luksDump", str(drive.path)).replace(str(drive.path), "")
            assert cryptsetup("luksDump", copy.path).replace(copy.path, "") == before
        assert os.listdir(header.DIRECTORY) == []


def test_what_is_no_volume_is_a_sentence(tmp_path: Path) -> None:
    for content in (b"", b"LUKS\xba\xbe\0\x02", os.urandom(1 << 20)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ImmudError, match="luksHeaderRestore"):
            identity.of(str(tmp_path / "x"))


def test_the_file_is_for_root_and_whole(make: Make) -> None:
    pin = identity.of(str(make("drive").path))
    assert identity.read("home") is None
    identity.write("home", pin)
    assert identity.read("home") == pin
    where = Path(identity.path("home"))
    assert where.stat().st_mode & 0o777 == 0o600
    assert json.loads(where.read_text())["uuid"] == pin.uuid
    # One that is not readable is not taken for none.
    where.write_text("{}")
    with pytest.raises(ImmudError, match="immud tomb enrol"):
        identity.read("home")
    identity.write("home", pin)
    assert os.listdir(identity.DIRECTORY) == ["home.json"]
    assert identity.forget("home")
    assert not identity.forget("home")
    assert identity.read("home") is None
