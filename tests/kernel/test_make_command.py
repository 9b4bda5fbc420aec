"""`immud tomb` as a person at a terminal meets it, on a drive that is a loop device.

There is no device mapper here: what comes after the header is written is shown in the machine.
"""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from immud.errors import WrongState
from immud.make.target import Stage
from tests.kernel.test_make import drive, own_etc
from tests.support.namespaces import in_namespace

TOP = Path(__file__).parents[2]
COMMAND = (sys.executable, "-B", "-m", "immud", "tomb")
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
    "PYTHONPATH": str(TOP),
}
CHEAP = ("--iter-time", "10", "--pbkdf-memory", "1024")


def immud(*arguments: str, key: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], input=key, capture_output=True, env=ENVIRONMENT, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def typed(*arguments: str, answers: dict[str, str]) -> tuple[int, str]:
    """Run it on a terminal; each prompt that ends with a key is answered. All that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*COMMAND, *arguments], ENVIRONMENT)
    shown, since = "", ""
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f"still running, having shown: {shown}"
        try:
            piece = os.read(terminal, 4096).decode()
        except OSError:  # EIO: the other end is closed
            break
        shown, since = shown + piece, since + piece
        for prompt, answer in answers.items():
            if since.endswith(prompt):
                os.write(terminal, f"{answer}\n".encode())
                since = ""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.replace("\r\n", "\n")


def content(node: str) -> bytes:
    return Path(node).read_bytes()


@in_namespace
def test_the_name_of_the_drive_is_typed_and_the_passphrase_twice(tmp_path: Path) -> None:
    own_etc()
    with drive(tmp_path / "image") as node:
        name = f"{node.removeprefix('/dev/')} 64.0 MiB"
        empty = content(node)
        code, shown = typed("create", node, answers={f"{name}: ": "another name"})
        assert code == 2
        assert f"{name} ({node}) becomes a tomb. It is empty." in shown
        assert "that is not its name; nothing was done" in shown
        code, shown = typed(
            *("create", node),
            answers={f"{name}: ": name, "home: ": "a secret", "Once more: ": "another secret"},
        )
        assert code == 2
        assert shown.count("The passphrases do not match.") == 3
        assert content(node) == empty

        answers = {f"{name}: ": name.upper(), "home: ": "a secret", "Once more: ": "a secret"}
        code, shown = typed("create", node, *CHEAP, answers=answers)
        assert "a secret" not in shown, "it was echoed"
        # As far as one comes without a device mapper. What is there is nobody's, and known as that.
        assert code == 1
        code, out, _ = immud("create", node, "--dry-run", "--json")
        assert (code, [step["operation"] for step in json.loads(out)][:2]) == (
            0,
            ["Wipe", "Format"],
        )
        command = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", node]
        assert subprocess.run(command, input=b"a secret", check=False).returncode == 0


@in_namespace
def test_scripts_say_the_device_twice(tmp_path: Path) -> None:
    own_etc()
    with drive(tmp_path / "image") as node:
        empty = content(node)
        for more, said in (
            ((), f"use --yes-i-mean {node}"),
            (("--yes-i-mean", "/dev/null"), "is not"),
            (("--yes-i-mean", node), "use --key-file or --passphrase-fd"),
            (("--yes-i-mean", node, "--passphrase-fd", "0", "--key-file", "x"), "not from both"),
            (("--yes-i-mean", node, "--passphrase-fd", "0"), "holds no key"),
            (("--from", "/nonexistent"), "no such directory"),
            (("--name", "no name"), "--name: is not a name for a tomb"),
            (("--mount", "home"), "not absolute"),
            (("--label", "x" * 48), "47 bytes"),
            (("--json",), "--dry-run"),
        ):
            code, out, err = immud("create", node, *more)
            assert (code, out) == (2, ""), (more, err)
            assert said in err
        # Nor does what comes later ask before it refuses.
        code, _, err = immud("create", node, "--mount", "/var/lib", "--passphrase-fd", "0")
        assert code == 1
        assert "belongs to the system" in err
        assert content(node) == empty


@in_namespace
def test_more_than_fits_is_not_begun(tmp_path: Path) -> None:
    own_etc()
    (tmp_path / "homes").mkdir()
    (tmp_path / "homes" / "large").write_bytes(b"x" * (65 << 20))
    with drive(tmp_path / "image") as node:
        code, _, err = immud(
            "create", node, "--from", str(tmp_path / "homes"), "--yes-i-mean", node
        )
        assert code == 1
        assert "do not fit" in err


@in_namespace
def test_cut_off_at_the_first_byte_of_the_header(tmp_path: Path) -> None:
    """As by a power cut. What is there counts as nobody's from that byte on."""
    own_etc()
    with drive(tmp_path / "image") as node:
        made = subprocess.Popen(
            [*COMMAND, "create", node, "--yes-i-mean", node, "--passphrase-fd", "0", *CHEAP],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        assert made.stdin
        made.stdin.write(b"a secret")
        made.stdin.close()
        with open(node, "rb", buffering=0) as device:
            while not any(os.pread(device.fileno(), 1 << 15, 0)):
                assert made.poll() is None
        assert os.getpid() == 1, "only in a process namespace of our own"
        os.kill(-1, signal.SIGKILL)
        made.wait()
        code, out, err = immud("create", node, "--dry-run")
        assert (code, err) == (0, "")
        assert out.startswith(f"erase the signatures of what is on {node}\n")


@in_namespace
def test_enrolled_listed_and_forgotten(tmp_path: Path) -> None:
    etc = own_etc()
    assert immud("list")[1].startswith("No tomb is configured.")
    key = etc / "key"
    key.write_bytes(b"key")
    key.chmod(0o644)
    with drive(tmp_path / "image") as node:
        command = ["cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2"]
        subprocess.run(
            [*command, "--pbkdf-force-iterations", "1000", "--key-file", str(key), node], check=True
        )
        code, _, err = immud("enrol", node, "--name", "mine", "--key-file", str(key))
        assert code == 1
        assert "Others may use the key file" in err
        key.chmod(0o600)
        # What an interrupted run left: the next one would go on with it, and delete in it.
        subprocess.run(["cryptsetup", "config", node, "--subsystem", Stage.COPYING], check=True)
        code, _, err = immud("enrol", node, "--name", "mine", "--key-file", str(key))
        assert code == WrongState.exit_code
        mend = re.search(r"first run: (cryptsetup .*)\. Nothing", err)
        assert mend, err
        subprocess.run(shlex.split(mend[1]), check=True)
        code, out, err = immud("enrol", node, "--name", "mine", "--key-file", str(key))
        assert code == 0, err
        assert f"{node} is tomb mine now" in out
    (listed,) = json.loads(immud("list", "--json")[1])
    assert (listed["name"], listed["state"], listed["key"]) == ("mine", "unknown", str(key))
    assert "mine" in immud()[1]
    assert immud("forget", "other")[0] == 1
    code, out, err = immud("forget", "mine")
    assert (code, err) == (0, "")
    assert "Its drive, and what is on it, stay" in out
    assert json.loads(immud("list", "--json")[1]) == []
    assert key.exists()
