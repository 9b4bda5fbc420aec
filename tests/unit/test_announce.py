"""What people are told at login, in files of the test's own."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immud import rootlogin
from immud.model import TombConfig
from immud.tomb.absence.absent import Absent
from immud.tomb.absence.announce import Announcements, Place, texts

HOME = TombConfig("home", label="Ada")
AWAY = Place(HOME, Absent.NOLOGIN, is_open=False)
OPEN = Place(HOME, Absent.NOLOGIN, is_open=True)
VOLATILE = Place(HOME, Absent.VOLATILE, is_open=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Announcements]:
    monkeypatch.setattr(rootlogin, "possible", lambda: True)
    (tmp_path / "immud").mkdir()
    paths = {
        "motd": str(tmp_path / "motd.d/immud"),
        "nologin": str(tmp_path / "nologin"),
        "ours": str(tmp_path / "immud/nologin"),
    }
    return lambda: Announcements(lambda: None, **paths)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_what_is_told() -> None:
    assert texts([]) == ("", "")
    assert texts([OPEN, VOLATILE._replace(is_open=True)]) == ("", "")
    assert texts([Place(HOME, Absent.DIRECTORY, is_open=False)]) == ("", "")
    motd, refusal = texts([VOLATILE, AWAY])
    assert "lost at power-off" in motd
    assert "the drive labelled Ada" in refusal
    motd, refusal = texts([OPEN], ["/var/home"])
    assert "What is in /var/home is in this machine's memory" in motd
    assert refusal == ""


async def test_the_message_of_the_day_comes_and_goes(
    files: Callable[[], Announcements], tmp_path: Path
) -> None:
    told = files()
    told.follow([VOLATILE])
    motd = tmp_path / "motd.d/immud"
    assert "lost at power-off" in motd.read_text()
    assert motd.stat().st_mode & 0o777 == 0o644
    told.follow([VOLATILE._replace(is_open=True)])
    assert list((tmp_path / "motd.d").iterdir()) == []


async def test_logins_are_refused_until_it_is_open(
    files: Callable[[], Announcements], tmp_path: Path
) -> None:
    told, nologin = files(), tmp_path / "nologin"
    told.follow([AWAY])
    assert "Plug in the drive labelled Ada" in nologin.read_text()
    told.close()
    # the next daemon knows it for ours
    told = files()
    told.follow([AWAY])
    told.follow([OPEN])
    assert not nologin.exists()
    assert list((tmp_path / "immud").iterdir()) == []


async def test_it_is_put_back_when_the_end_of_booting_removes_it(
    files: Callable[[], Announcements], tmp_path: Path
) -> None:
    told, nologin = files(), tmp_path / "nologin"
    nologin.write_text("System is booting up.\n")
    told.follow([AWAY])
    assert nologin.read_text() == "System is booting up.\n"
    for _ in range(3):
        nologin.unlink()
        await until(nologin.exists)
        assert "labelled Ada" in nologin.read_text()
    # tmpfiles.d(5) writes into the file that is there
    nologin.write_text("System is booting up.\n")
    nologin.unlink()
    await until(nologin.exists)
    assert "labelled Ada" in nologin.read_text()
    told.close()


async def test_what_somebody_else_wrote_stays(
    files: Callable[[], Announcements], tmp_path: Path
) -> None:
    told, nologin = files(), tmp_path / "nologin"
    told.follow([AWAY])
    (tmp_path / "aside").write_text("System is going down.\n")
    (tmp_path / "aside").rename(nologin)
    told.follow([OPEN])
    assert nologin.read_text() == "System is going down.\n"


async def test_nobody_is_refused_where_root_would_be_too(
    files: Callable[[], Announcements], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootlogin, "possible", lambda: False)
    told = files()
    told.follow([AWAY])
    assert not (tmp_path / "nologin").exists()
    assert told.problem
    assert told.problem.code == "nologin-refused"
    monkeypatch.setattr(rootlogin, "possible", lambda: True)
    told.look_again()
    told.follow([AWAY])
    assert told.problem is None
    assert (tmp_path / "nologin").exists()
    told.close()


DAYS = "19000:0:99999:7:::"


def system(root: Path, shadow: str, shell: str = "/bin/bash", days: str = DAYS) -> str:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:{shell}\n")
    (root / "etc/shadow").write_text(f"root:{shadow}:{days}\n")
    return str(root)


@pytest.mark.parametrize(
    ("shadow", "shell", "possible"),
    [
        ("$y$j9T$salt$hash", "/bin/bash", True),
        ("", "/bin/bash", True),
        ("!", "/bin/bash", False),
        ("!$y$j9T$salt$hash", "/bin/bash", False),
        ("*", "/bin/bash", False),
        ("$y$j9T$salt$hash", "/usr/sbin/nologin", False),
    ],
)
def test_root_needs_a_password(tmp_path: Path, shadow: str, shell: str, possible: bool) -> None:
    assert rootlogin.possible(system(tmp_path, shadow, shell)) is possible


TODAY = int(time.time()) // 86400


@pytest.mark.parametrize(
    ("days", "possible"),
    [
        (DAYS, True),
        ("", True),
        (f"19000:0:99999:7::{TODAY}:", False),
        (f"19000:0:99999:7::{TODAY + 2}:", True),
        ("19000:0:99999:7::0:", False),
        # A password that is too old is changed at the login, but only for some days.
        ("19000:0:365:7:::", True),
        ("19000:0:365:7:30::", False),
        (f"{TODAY - 380}:0:365:7:30::", True),
    ],
)
def test_nothing_gets_root_in_who_has_expired(tmp_path: Path, days: str, possible: bool) -> None:
    assert rootlogin.possible(system(tmp_path, "$y$j9T$salt$hash", days=days)) is possible
    with_sshd(tmp_path)
    assert rootlogin.possible(system(tmp_path, "*", days=days)) is possible


CLOUD = (
    "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as the "
    'user \\"debian\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142"'
)


def with_sshd(root: Path, config: str = "", keys: str = "ssh-ed25519 AAAA ada\n") -> str:
    """A system whose root has no password, with these keys and an sshd."""
    (root / "var/roothome/.ssh").mkdir(parents=True)
    (root / "root").symlink_to("var/roothome")
    (root / "root/.ssh/authorized_keys").write_text(keys)
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/sshd").touch()
    (root / "etc/ssh/sshd_config.d").mkdir(parents=True)
    (root / "etc/ssh/sshd_config").write_text(config)
    return system(root, "*")


def test_or_a_key_and_somebody_who_takes_it(tmp_path: Path) -> None:
    root = with_sshd(tmp_path)
    assert rootlogin.possible(root) is True
    (tmp_path / "root/.ssh/authorized_keys").write_text("# nobody yet\n\n")
    assert rootlogin.possible(root) is False
    (tmp_path / "root/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA ada\n")
    (tmp_path / "etc/ssh/sshd_config").unlink()
    assert rootlogin.possible(root) is False
    (tmp_path / "etc/ssh/sshd_config").touch()
    (tmp_path / "usr/sbin/sshd").unlink()
    assert rootlogin.possible(root) is False


@pytest.mark.parametrize(
    ("config", "way"),
    [("", False), ("UsePAM no\nUsePAM yes\n", False), ("UsePAM yes\n", True)],
)
def test_a_locked_account_is_pam_s_to_open(tmp_path: Path, config: str, way: bool) -> None:
    with_sshd(tmp_path, config)
    assert rootlogin.possible(system(tmp_path, "!")) is way
    assert rootlogin.possible(system(tmp_path, "!$y$j9T$salt$hash")) is way


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ("", True),
        ("restrict,pty ", True),
        ('from="10.0.0.1, 10.0.0.2",no-pty\t', True),
        (r'environment="X=a \" ,command=b" ', True),
        (f"{CLOUD} ", False),
        ('COMMAND="/bin/backup" ', False),
        ('from="10.0.0.1",Command="" ', False),
        ('cert-authority,principals="x" ', False),
        ('expiry-time="20200101" ', False),
        ('environment="unfinished ', False),
        ("# ", False),
        ("# command=no, ", False),
    ],
)
def test_a_key_may_be_good_for_nothing(tmp_path: Path, options: str, way: bool) -> None:
    keys = f"# root's\n{options}ssh-rsa AAAAB3Nza== ada@home\n"
    assert rootlogin.possible(with_sshd(tmp_path, keys=keys)) is way


def test_one_that_is_good_is_enough(tmp_path: Path) -> None:
    keys = f"{CLOUD} ssh-rsa AAAA cloud\n  sk-ssh-ed25519@openssh.com AAAA ada\n"
    assert rootlogin.possible(with_sshd(tmp_path, keys=keys)) is True


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ("PermitRootLogin prohibit-password\nPermitRootLogin no\n", True),
        ("#PermitRootLogin no\n", True),
        ("PermitRootLogin no\n", False),
        ("permitrootlogin=NO # never\n", False),
        ('  PermitRootLogin\t"forced-commands-only"\n', False),
        ("PermitRootLogin what-comes-later\n", False),
        ("PermitRootLogin\n", False),  # sshd does not start with it
        ('Banner "half\n', False),
        ("PubkeyAuthentication no\n", False),
        ("AuthorizedKeysFile /etc/ssh/keys/%u\n", False),
        ("AuthorizedKeysFile /etc/ssh/keys/%u %h/.ssh/authorized_keys\n", True),
        ("AuthorizedKeysFile /root/.ssh/authorized_keys\n", True),
        ("AuthenticationMethods publickey,password\n", False),
        ("ForceCommand /bin/menu\n", False),
        ("AllowUsers ada\n", False),
        ("AllowUsers ada\nAllowUsers root\n", True),
        ("AllowGroups ssh\n", False),
        ("DenyUsers bob\n", True),
        ("DenyUsers bob r??t@10.*\n", False),
        # Who knows from where root comes.
        ("PermitRootLogin yes\nMatch Address *,!10.0.0.0/8\n PermitRootLogin no\n", False),
        ("PermitRootLogin no\nMatch Address 10.0.0.0/8\n PermitRootLogin yes\n", False),
        ("Match Group sftp\n  ForceCommand internal-sftp\n", True),
        ("Match User git,root\n  ForceCommand git-shell\n", False),
        ("Match User git\n X11Forwarding no\nMatch all\n PermitRootLogin no\n", False),
        ("Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n", False),
        ("PermitRootLogin yes\nInclude sshd_config.d/*.conf\n", True),
        ("Match Address 10.0.0.0/8\nInclude sshd_config.d/*.conf\n", False),
        ("Match User git\nInclude sshd_config.d/*.conf\n", True),
        ("Include /etc/ssh/sshd_config\n", True),
    ],
)
def test_sshd_may_not_let_root_in(tmp_path: Path, config: str, way: bool) -> None:
    root = with_sshd(tmp_path, config)
    (tmp_path / "etc/ssh/sshd_config.d/90.conf").write_text("PermitRootLogin yes\n")
    (tmp_path / "etc/ssh/sshd_config.d/10.conf").write_text("PermitRootLogin no\n")
    assert rootlogin.possible(root) is way


def test_without_accounts_nobody_can(tmp_path: Path) -> None:
    assert rootlogin.possible(str(tmp_path)) is False
