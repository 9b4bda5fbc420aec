"""Headers that cryptsetup made, read through its library; no device-mapper is needed for that."""

import asyncio
import errno
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from immud.child import ChildTimeout, in_child
from immud.errors import ImmudError
from immud.tomb import secret
from immud.tomb.luks import header, identity, libcryptsetup
from immud.tomb.luks.pin import differences, dumps, loads
from tests.support import metadata
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
    metadata.decipher(drive.path)
    assert "cipher_null-ecb" in cryptsetup("luksDump", str(drive.path))
    with pytest.raises(ImmudError, match=r"not encrypted \(cipher_null-ecb\)"):
        identity.of(str(drive.path))


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


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_the_copy_that_is_opened(make: Make, version: int) -> None:
    drive = make("drive", version=version)
    with header.copied(str(drive.path)) as copy:
        copy.complete()
        copy.header.set_data(str(drive.path))
        # Whatever the drive answers from now on is not looked at.
        with drive.path.open("r+b") as file:
            file.write(bytes(1 << 20))
        with pytest.raises(libcryptsetup.Failed) as caught:
            try_key(copy, b"wrong")
        assert caught.value.errno == errno.EPERM
        try_key(copy, PASSPHRASE)
    with pytest.raises(ImmudError, match="luksHeaderRestore"):
        identity.of(str(drive.path))


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


def read_all(path: str) -> str:
    """All that unlocking does but the mapping itself."""
    with header.copied(path) as copy:
        pin = identity.shown(copy.header)
        identity.require("home", path, pin, None)
        copy.complete()
        copy.header.set_data(path)
        with suppress(libcryptsetup.Failed):
            try_key(copy, PASSPHRASE)
    return dumps(pin)


def try_key(copy: header.Copy, passphrase: bytes) -> None:
    with secret.held(passphrase) as (buffer, length):
        copy.header.activate(None, buffer, length)


def mutations(content: bytes, seed: int) -> Iterator[bytes]:
    """Truncated, with flipped bytes, with pieces swapped; a good checksum or a bad one."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    for _ in range(60):
        data = bytearray(content)
        kind = chance.randrange(4)
        if kind == 0:
            del data[chance.choice((chance.randrange(600), chance.randrange(1 << 16))) :]
        for _ in range(chance.choice((1, 1, 4, 64)) if data else 0):
            # Mostly where the fields and the JSON are, in one copy or in both.
            at = chance.choice((chance.randrange(512), chance.randrange(4096, 5600)))
            value = chance.choice((0, 0xFF, 0x7B, 0x22, chance.randrange(256)))
            for start in (0, metadata.AREA)[: chance.choice((1, 2))]:
                if start + at < len(data):
                    data[start + at] = value
        if kind > 1 and len(data) >= 2 * metadata.AREA:
            metadata.check(data)
        yield bytes(data)


@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_header_is_read_or_refused_and_takes_nothing_with_it(
    make: Make, tmp_path: Path, version: int
) -> None:
    drive = make("drive", version=version)
    content = drive.path.read_bytes()[: 4 << 20]
    damaged = tmp_path / "damaged"
    outcomes = {"read": 0, "refused": 0}

    async def one(data: bytes) -> None:
        damaged.write_bytes(data)
        os.truncate(damaged, max(len(data), 24 << 20) if len(data) > 1 << 16 else len(data))
        try:
            assert loads(await in_child(read_all, str(damaged), timeout=10)).uuid
            outcomes["read"] += 1
        except ChildTimeout:
            raise
        except ImmudError:
            outcomes["refused"] += 1

    async def all_of_them() -> None:
        for data in mutations(content, seed=version):
            await one(data)

    asyncio.run(all_of_them())
    # Neither all survived, which would be no damage, nor none, which would test one line.
    assert min(outcomes.values()) > 1, outcomes
