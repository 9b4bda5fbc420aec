"""The real command in a process of its own: exit codes, output, and what it imports.

Only ever on a system in another root directory: nothing here may touch this one.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immud.cli.command import Command
from immud.cli.parser import COMMANDS, build
from immud.cli.tomb_commands import TOMB
from immud.config.compile import compile_now
from immud.early.plan import decode

TOP = Path(__file__).parents[2]
NOBODY = 65534

UNIT = """\
[Service]
ExecStart=/bin/true
[Install]
WantedBy=local-fs.target
Alias=dbus-org.immud1.service
"""


def immud(
    *arguments: str, user: int | None = None, top: Path = TOP, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *options, "-m", "immud", *arguments],
        cwd=top,
        env={"PATH": os.environ["PATH"], "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user if os.geteuid() == 0 else None,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small stock system."""
    for path in ("usr/bin", "usr/lib/systemd/system", "etc/systemd/system", "var", "tmp", "home/a"):
        (tmp_path / path).mkdir(parents=True)
    for name in ("pystemd", "dbus_next", "pyudev", "structlog"):
        (tmp_path / "usr/lib/python3/dist-packages" / name).mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/immud.service").write_text(UNIT)
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def tree(root: Path) -> dict[str, object]:
    """Everything below `root`: names, contents of files and of links."""
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


# --- the command line -----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [(), ("nonsense",), ("status", "--nonsense"), ("plan", "x"), ("open", "a", "b"), ("stat",)],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = immud(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: immud" in done.stderr


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = immud("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command.name} " in done.stdout
    assert "3 the daemon cannot" in done.stdout
    assert max(map(len, done.stdout.split("\n"))) <= 80


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_its_own_help_and_its_function(command: object) -> None:
    assert command in COMMANDS
    arguments = build().parse_args([command.name])  # type: ignore[attr-defined]
    assert (arguments.module, arguments.function) == (command.module, command.function)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def readable() -> Iterator[Path]:
    """A copy of the package for another user: the checkout may be closed to nobody."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shutil.copytree(TOP / "immud", Path(directory, "immud"))
        yield Path(directory)


@pytest.mark.parametrize("command", TOMB.commands, ids=lambda command: command.name)
def test_every_command_of_tomb_has_its_own_function_and_needs_root(
    command: Command, readable: Path
) -> None:
    needed = [
        flags[0]
        for flags, options in command.arguments
        if not flags[0].startswith("-") and "nargs" not in options
    ]
    words = ["x"] * len(needed)
    arguments = build().parse_args(["tomb", command.name, *words])
    assert (arguments.module, arguments.function) == (command.module, command.function)
    done = immud("tomb", command.name, *words, user=NOBODY, top=readable)
    if command.name == "list":
        assert done.returncode == 0
    else:
        assert done.returncode == 4
        assert f"immud tomb {command.name} changes the system and needs root" in done.stderr


@pytest.mark.parametrize("command", ["enable", "disable", "adopt", "release", "daemon"])
def test_without_root_it_is_4_and_says_so(command: str, readable: Path) -> None:
    done = immud(command, user=NOBODY, top=readable)
    assert done.returncode == 4
    assert done.stderr == (
        f"immud: immud {command} changes the system and needs root; try: sudo immud {command}\n"
    )


# --- plan -----------------------------------------------------------------------

PLAN = """\
link       /usr/local       -> ../var/usrlocal
mount      /usr             read-only, from /usr
mount      /etc             writable, from /etc
mount      /var             writable, from /var
mount      /home            writable, from /home
"""


def test_plan_prints_the_steps(root: Path) -> None:
    before = tree(root)
    done = immud("plan", "--root", str(root))
    assert done.returncode == 0
    assert done.stdout.startswith(PLAN)
    assert "link       /opt             -> var/opt\n" in done.stdout
    assert done.stdout.endswith("read-only  /\n")
    assert "immud adopt /home" in " ".join(done.stderr.split())
    assert tree(root) == before


def test_plan_for_programs(root: Path) -> None:
    done = immud("plan", "--root", str(root), "--json")
    record = json.loads(done.stdout)
    assert done.stderr == ""
    assert record["steps"][1] == {
        "operation": "attach",
        "target": "/usr",
        "source": "/usr",
        "read_only": True,
        "mode": None,
        "description": PLAN.split("\n")[1],
    }
    assert {"path": "/home", "target": "var/home", "state": "unadopted", "kind": "link"} in (
        record["links"]
    )
    assert [problem["code"] for problem in record["problems"]] == ["unadopted"]


def test_plan_with_a_wrong_configuration_is_1(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "etc/immud/immud.toml").write_text("[bot]\n")
    done = immud("plan", "--root", str(root))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f'immud: {root}/etc/immud/immud.toml:1: bot: unknown table; did you mean "boot"?\n'
    )


# --- enable and disable ---------------------------------------------------------


def test_enable_again_and_disable_leave_what_was_there(root: Path) -> None:
    (root / "etc/immud").mkdir()
    before = tree(root)
    first = immud("enable", "--root", str(root))
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Enabled. Nothing changes before the next boot, which will:\n")
    enabled = tree(root)
    assert decode((root / "etc/immud/boot.plan").read_bytes()) == compile_now(str(root))
    assert sorted(enabled.keys() - before.keys()) == [
        "etc/immud/boot.count",
        "etc/immud/boot.plan",
        "etc/systemd/system/dbus-org.immud1.service",
        "etc/systemd/system/local-fs.target.wants",
        "etc/systemd/system/local-fs.target.wants/immud.service",
    ]

    again = immud("enable", "--root", str(root))
    assert (again.returncode, again.stdout) == (
        0,
        "Enabled already, and the boot plan is up to date.\n",
    )
    assert tree(root) == enabled

    (root / "etc/immud/immud.toml").write_text("boot.wait = 20\n")
    changed = immud("enable", "--root", str(root))
    assert changed.stdout == "The boot plan was compiled anew; the next boot follows it.\n"
    assert decode((root / "etc/immud/boot.plan").read_bytes()).wait == 20
    (root / "etc/immud/immud.toml").unlink()

    done = immud("disable", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Disabled. ")
    after = tree(root)
    # Some versions of systemctl leave the directory they made, empty.
    assert after.pop("etc/systemd/system/local-fs.target.wants", None) is None
    assert after == before

    again = immud("disable", "--root", str(root))
    assert (again.returncode, again.stdout) == (0, "Not enabled; nothing to undo.\n")


def test_disable_says_what_is_not_there_at_the_next_boot(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "persist").mkdir()
    (root / "persist/.immud").touch()
    (root / "etc/immud/immud.toml").write_text('var.source = "/persist"\n')
    assert immud("enable", "--root", str(root)).returncode == 0
    done = immud("disable", "--root", str(root))
    assert done.stdout.splitlines()[2:] == [
        "It has the root file system's own /var again, not the one of /persist."
    ]


def test_disable_goes_on_without_a_source_that_is_gone(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "etc/apt/apt.conf.d").mkdir(parents=True)
    (root / "persist").mkdir()
    (root / "etc/immud/immud.toml").write_text('etc.source = "/persist"\n')
    before = tree(root)
    assert immud("enable", "--seed", "--root", str(root)).returncode == 0
    shutil.move(root / "persist", root / "away")
    done = immud("disable", "--root", str(root))
    assert done.returncode == 0
    assert done.stdout.startswith("Disabled. ")
    assert "/persist could not be reached (No such file or directory)" in done.stderr
    after = tree(root)
    assert {name for name in after.keys() - before.keys() if name.startswith("etc/")} <= {
        "etc/systemd/system/local-fs.target.wants"
    }


def test_enable_refuses_before_it_touches_anything_and_says_everything(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "etc/immud/immud.toml").write_text("[bot]\n[boot]\nwait = -1\n")
    (root / "etc/fstab").write_text("UUID=1 /usr ext4 defaults 0 2\n")
    before = tree(root)
    done = immud("enable", "--root", str(root))
    assert done.returncode == 1
    assert done.stdout == ""
    said = " ".join(done.stderr.split())
    for text in (
        'immud.toml:1: bot: unknown table; did you mean "boot"?',
        "immud.toml:3: boot.wait: is -1; it has to be",
        "error: /etc/fstab:1: /usr is mounted from here",
        "warning: systemd is not running as PID 1",
        "immud: nothing was changed; solve these 3 problems first, then run immud enable again",
    ):
        assert text in said
    assert tree(root) == before


def test_enable_takes_its_plan_back_where_the_unit_cannot_be_enabled(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "etc/systemd/system/immud.service").symlink_to("/dev/null")
    before = tree(root)
    done = immud("enable", "--root", str(root))
    assert done.returncode == 1
    assert "immud: systemctl ended with status 1: " in done.stderr
    assert "masked" in done.stderr
    assert tree(root) == before


def test_enable_takes_everything_back_where_its_last_step_fails(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "usr/local/sbin").mkdir(parents=True)
    (root / "etc/apt/apt.conf.d/90immud.new").mkdir(parents=True)
    before = tree(root)
    done = immud("enable", "--root", str(root))
    assert done.returncode == 1
    assert "90immud.new" in done.stderr
    after = tree(root)
    # Some versions of systemctl leave the directory they made, empty.
    after.pop("etc/systemd/system/local-fs.target.wants", None)
    assert after == before


# --- signals, and readers that go away ------------------------------------------


def test_interrupted_it_ends_as_the_signal_ends_a_program(root: Path) -> None:
    (root / "etc/immud").mkdir()
    os.mkfifo(root / "etc/immud/immud.toml")  # opening it waits for a writer
    command = [sys.executable, "-m", "immud", "plan", "--root", str(root)]
    with subprocess.Popen(command, cwd=TOP, stderr=subprocess.PIPE) as process:
        writing = _open_when_read(root / "etc/immud/immud.toml")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        os.close(writing)
    assert process.returncode == -signal.SIGINT
    assert stderr == b""


def _open_when_read(fifo: Path) -> int:
    """A writing end, as soon as somebody has the reading one: they now wait for data."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.02)
    pytest.fail("nobody reads the configuration")


def test_a_reader_that_goes_away_is_no_error(root: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "immud", "plan", "--json", "--root", str(root)]
    done = subprocess.run(
        command, cwd=TOP, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


# --- what is imported -------------------------------------------------------------

HEAVY = {"dbus_next", "dbus_fast", "pyudev", "structlog", "pystemd", "asyncio", "subprocess"}


@pytest.mark.parametrize(
    "arguments", [("--help",), ("plan", "--root", "ROOT"), ("enable", "--root", "BAD")]
)
def test_what_needs_no_daemon_imports_no_library(root: Path, arguments: tuple[str, ...]) -> None:
    bad = root / "bad"
    bad.mkdir()
    places = {"ROOT": str(root), "BAD": str(bad)}
    done = immud(*(places.get(a, a) for a in arguments), options=("-X", "importtime"))
    imported = {
        line.rpartition("|")[2].strip() for line in done.stderr.split("\n") if "import time" in line
    }
    assert "immud.cli" in imported
    assert not imported & HEAVY


# --- without a daemon --------------------------------------------------------------


@pytest.mark.parametrize("command", ["watch", "open", "close", "eject"])
def test_without_a_daemon_it_is_3(command: str) -> None:
    done = immud(command)
    assert done.returncode == 3
    assert done.stderr.startswith("immud: The system bus cannot be reached")
    assert done.stdout == ""


def test_status_of_a_system_that_is_not_enabled_says_how_to_enable_it() -> None:
    done = immud("status")
    assert done.returncode == 3
    assert done.stderr == (
        "immud: immud is not enabled on this system. "
        "Preview: immud plan. Turn it on: sudo immud enable\n"
    )


# --- sources that boot would not trust ------------------------------------------------


def test_enable_wants_a_source_marked_and_seeds_it_when_told_to(root: Path) -> None:
    (root / "etc/immud").mkdir()
    (root / "persist").mkdir()
    (root / "etc/immud/immud.toml").write_text('etc.source = "/persist"\n')
    done = immud("enable", "--root", str(root))
    assert done.returncode == 1
    assert "immud enable --seed copies /etc to it" in " ".join(done.stderr.split())
    assert list((root / "persist").iterdir()) == []

    done = immud("enable", "--seed", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Copying /etc to /persist. ")
    assert (root / "persist/immud/immud.toml").exists()
    assert (root / "persist/.immud").exists()
    assert "Copying" not in immud("enable", "--seed", "--root", str(root)).stdout
