"""What `enable` refuses, what it only says, and that each says what to do."""

from pathlib import Path

import pytest

from immud.config.layout import SILVERBLUE
from immud.config.load import Config
from immud.enable.check import VAR_UNITS, System, check, look
from immud.enable.fstab import FstabLine
from immud.enable.fstab import parse as parse_fstab
from immud.errors import ConfigError
from immud.model import Severity, TombConfig

CONFIG = Config(rows=SILVERBLUE, tombs=(TombConfig("home", label="x"),))


def said(system: System, config: Config = CONFIG) -> list[str]:
    return [f"{p.severity.value} {p.code}: {p.text}" for p in check(config, system)]


def test_nothing_speaks_against_a_good_system() -> None:
    assert said(System()) == []


@pytest.mark.parametrize(
    ("system", "text"),
    [
        (System(systemd=False), "error no-systemd: systemd is not running as PID 1, "),
        (System(here=False, systemd=False), "warning no-systemd: systemd is not running as PID 1"),
        (System(unit=False), "error no-unit: /usr/lib/systemd/system/immud.service is missing"),
        (System(usr_merged=False), "error no-usrmerge: /bin is a directory of its own"),
        (
            System(missing_libraries=("dbus_next",)),
            "error missing-library: the Python library dbus_next is missing, and the daemon cannot "
            "run without it; apt install python3-dbus-next",
        ),
        (
            System(kernel="5.4", missing_calls=("open_tree(2)", "mount_setattr(2)")),
            "warning old-kernel: Linux 5.4 has no open_tree(2) and mount_setattr(2), and ",
        ),
        (System(uncompiled=("cli/x.py",)), "warning no-bytecode: 1 modules of immud are not"),
        (System(var_is_a_mount=True), "notice var-mounted: /var is a file system of its own"),
    ],
)
def test_the_machine(system: System, text: str) -> None:
    (line,) = said(system)
    assert line.startswith(text)


@pytest.mark.parametrize(
    ("source", "here", "text"),
    [
        (
            "/persist",
            True,
            'error no-source: etc.source is "/persist", and there is no directory; ',
        ),
        (
            "/persist",
            False,
            'error no-source: etc.source is "/persist", and there is no directory; ',
        ),
        ("LABEL=x", True, 'error no-source: etc.source is "LABEL=x", and no block device '),
        ("LABEL=x", False, 'warning source-unknown: whether there is a file system "LABEL=x" '),
    ],
)
def test_sources(source: str, here: bool, text: str) -> None:
    system = System(here=here, absent_sources=(source,))
    (line,) = said(system, Config(etc=source))
    assert line.startswith(text)
    assert said(System(), Config(etc=source)) == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("UUID=1 / ext4 defaults 0 1", ""),
        ("UUID=1 /boot/efi vfat defaults 0 1", ""),
        ("UUID=1 none swap sw 0 0", ""),
        ("/var/swapfile none swap sw 0 0", ""),
        ("/dev/sda5 none swap sw 0 0", ""),
        ("/swapfile none swap sw 0 0", "error swap-file: /etc/fstab:1: the swap file /swapfile "),
        ("UUID=1 /var ext4 defaults 0 2", ""),
        ("UUID=1 /var/log ext4 defaults 0 2", ""),
        ("tmpfs /tmp tmpfs defaults 0 0", ""),
        ("UUID=1 /usr ext4 defaults 0 2", "error fstab: /etc/fstab:1: /usr is mounted from here "),
        ("UUID=1 /usr/ ext4 defaults 0 2", "error fstab: /etc/fstab:1: /usr is mounted from here "),
        ("UUID=1 /etc ext4 defaults 0 2", "error fstab: /etc/fstab:1: /etc is mounted from here "),
        (
            "UUID=1 /home ext4 defaults 0 2",
            "warning fstab: /etc/fstab:1: mounts /home, so /home stays a directory; to have the "
            'link, run immud adopt /home, or drop the row with "/home" = false',
        ),
        (
            "nas:/x /mnt/data\\0401 nfs defaults 0 2",
            "warning fstab: /etc/fstab:1: mounts /mnt/data 1, so /mnt stays a directory; to have "
            'the link, write /var/mnt/data 1, or drop the row with "/mnt" = false',
        ),
        (
            "UUID=1 /opt/x ext4 defaults 0 2",
            "warning fstab: /etc/fstab:1: /opt/x is behind the link /opt, and systemd mounts it "
            "where that leads; write /var/opt/x",
        ),
        (
            "UUID=1 /var/home ext4 defaults 0 2",
            "error fstab: /etc/fstab:1: /var/home is where tomb home goes, ",
        ),
    ],
)
def test_fstab(line: str, text: str) -> None:
    found = said(System(fstab=parse_fstab(line), links=frozenset(("/opt",))))
    assert len(found) == bool(text)
    assert "".join(found).startswith(text)


def test_a_tomb_and_a_line_that_leads_to_its_place() -> None:
    lines = parse_fstab("UUID=1 /home ext4 defaults 0 2")
    found = said(System(fstab=lines, links=frozenset(("/home",))))
    assert found[0].startswith("error fstab: /etc/fstab:1: /home is where tomb home goes, ")


def test_the_fstab_below_another_etc_is_named_with_the_way_to_it() -> None:
    (line,) = said(System(fstab=parse_fstab("UUID=1 /usr ext4 defaults 0 2", own=True)))
    assert line.startswith(
        "error fstab: /etc/fstab:1 (the root file system's own): /usr is mounted"
    )
    assert line.endswith(
        'with: immud unlock -- sh -c "mount --bind / /mnt && editor /mnt/etc/fstab; umount /mnt"'
    )


def test_var_has_one_source() -> None:
    system = System(fstab=parse_fstab("UUID=1 /var ext4 defaults 0 2"))
    assert said(system, Config(var="LABEL=x"))[0].startswith("error fstab: /etc/fstab:1: /var is ")


def test_a_unit_that_mounts_var() -> None:
    own, made = VAR_UNITS[0], VAR_UNITS[-1]
    assert said(System(var_unit=own)) == []
    (line,) = said(System(var_unit=own), Config(var="LABEL=x"))
    assert line.startswith(f"error var-unit: {own} mounts /var, and var.source names another place")
    (line,) = said(System(var_unit=made))
    assert line.startswith("error var-unit: systemd mounts /var only because of its GPT type and ")
    # Written meanwhile; systemd has not made its units anew.
    fstab = parse_fstab("UUID=1 /var ext4 defaults 0 2")
    assert said(System(var_unit=made, fstab=fstab)) == []


def test_that_unit_is_found(tmp_path: Path) -> None:
    assert look(CONFIG, str(tmp_path)).var_unit == ""
    for unit in (VAR_UNITS[-1], VAR_UNITS[3], VAR_UNITS[0]):
        path = tmp_path / unit[1:]
        path.parent.mkdir(parents=True)
        path.touch()
        assert look(CONFIG, str(tmp_path)).var_unit == unit
    path.unlink()
    path.symlink_to("/dev/null")
    assert look(CONFIG, str(tmp_path)).var_unit == VAR_UNITS[3]


def test_nobody_is_kept_out_where_root_is_out_too() -> None:
    config = Config(tombs=(TombConfig("home", label="x", absent="nologin"),))
    assert said(System(), config) == []
    (line,) = said(System(root_can_log_in=False), config)
    assert line.startswith('error no-root-login: with absent = "nologin" only root may log in ')
    assert said(System(root_can_log_in=False)) == []


def test_a_source_that_nothing_says_is_meant() -> None:
    found = said(System(unmarked_sources=("/persist",)), Config(etc="/persist"))
    assert found[0].startswith(
        'error unmarked-source: etc.source is "/persist", and no file .immud'
    )
    assert said(System(unmarked_sources=("/x",)), Config(usr="/x")) == []


def test_errors_come_first_those_of_the_configuration_among_them() -> None:
    system = System(var_is_a_mount=True, uncompiled=("x.py",), unit=False)
    wrong = ConfigError("text", file="/f", line=3, key="k")
    found = check(CONFIG, system, (wrong,))
    assert [problem.severity for problem in found] == [
        Severity.ERROR,
        Severity.ERROR,
        Severity.WARNING,
        Severity.NOTICE,
    ]
    assert found[0].text == "/f:3: k: text"


def test_reading_fstab() -> None:
    text = "# c\n\n  \nUUID=1\t/a\\040b/  ext4 rw 0 0\nbroken line\n/x\\y /z ext4\n"
    assert parse_fstab(text) == (
        FstabLine(4, "UUID=1", "/a b", "ext4"),
        FstabLine(6, "/x\\y", "/z", "ext4"),
    )


def stock(root: Path) -> None:
    for path in ("usr/bin", "usr/lib/systemd/system", "etc", "var/home", "opt", "persist"):
        (root / path).mkdir(parents=True)
    for name in ("pystemd", "dbus_next", "pyudev", "structlog"):
        (root / "usr/lib/python3/dist-packages" / name).mkdir(parents=True)
    (root / "usr/lib/systemd/system/immud.service").touch()
    (root / "bin").symlink_to("usr/bin")
    (root / "home").symlink_to("var/home")
    (root / "etc/fstab").write_text("UUID=1 / ext4 defaults 0 1\n")


def test_looking_at_another_root(tmp_path: Path) -> None:
    stock(tmp_path)
    (tmp_path / "etc/image").touch()
    config = Config(usr="/etc/image", etc="/persist", var="/absent", rows=SILVERBLUE)
    system = look(config, str(tmp_path))
    assert (system.here, system.systemd, system.unit, system.usr_merged) == (
        False,
        False,
        True,
        True,
    )
    assert system.absent_sources == ("/absent",)
    assert system.unmarked_sources == ("/persist",)
    assert look(Config(etc="/etc/image"), str(tmp_path)).absent_sources == ("/etc/image",)
    assert system.links == {"/home"}
    assert system.fstab == (FstabLine(1, "UUID=1", "/", "ext4"),)
    assert system.missing_libraries == ()


def test_looking_at_a_poor_root(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    system = look(Config(), str(tmp_path))
    assert not system.unit
    assert not system.usr_merged
    assert system.missing_libraries == ("pystemd", "dbus_next", "pyudev", "structlog")
    assert system.fstab == ()


def test_looking_at_this_machine_finds_the_calls_its_kernel_has() -> None:
    """Everything the tests need runs on Linux 5.12 or newer."""
    system = look(Config())
    assert system.missing_libraries == ()
    assert system.missing_calls == ()


def test_every_module_is_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.cache_from_source", lambda _path: "/nonexistent")
    assert {"run.py", "cli/enable.py", "enable/check.py"} <= set(look(Config()).uncompiled)
