"""The layout in a real machine: its own kernel, udev, initrd, and a stock Debian around it.

A boot takes half a minute, so each test is one story of few boots and many questions.
"""

import json
import re

from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive
from tests.support.layout import EARLY_BIRD, complaints, failures
from tests.support.tomb import KEY, WRITE, assert_no_residue, configure, wait_ended, wait_for
from tests.support.vm import VM

PREPARE = """
cat >/etc/systemd/system/early-bird.service
systemctl -q enable early-bird.service
immud adopt
immud enable
"""

# What a person would look at, and what has to answer as on any Debian.
SANE = """
python3 -c 'import json, ssl, sqlite3, asyncio'
busctl tree --no-pager org.immud1 | grep -q /org/immud1/mount
systemctl status immud --no-pager -n0 | grep 'Status: "'
dpkg --audit
su - alice -c 'cd && pwd -P && cat Documents/letter.txt && touch written'
su - -c 'pwd -P && ls .ssh'
/opt/vendor/bin/tool; greet; cat /srv/www/index.html
"""
ANSWERS = ["/var/home/alice", "a letter", "/var/roothome", "authorized_keys", "vendor", "local",
           "<p>hello</p>"]  # fmt: skip

# login(1) on a terminal: PAM, the shell, and whatever is in the profiles.
LOG_IN = """
import contextlib, os, pty, signal, time
signal.alarm(50)
login, terminal = pty.fork()
if not login:
    os.execv("/bin/login", ["login"])
answers = [(b"login:", b"alice"), (b"assword:", b"alice"), (b"alice@", b"cat D*/l*; exit")]
told = unanswered = b""
while not os.waitpid(login, os.WNOHANG)[0]:
    try:
        more = os.read(terminal, 1024)
    except OSError:  # login hangs the line up before it asks, and at the end
        time.sleep(0.1)
        continue
    told += more
    unanswered += more
    if answers and answers[0][0] in unanswered:
        os.write(terminal, answers.pop(0)[1] + b"\\n")
        unanswered = b""
with contextlib.suppress(OSError):
    told += os.read(terminal, 4096)
print(told.decode())
"""

PUT_KEY = "umask 077; mkdir -p /etc/immud/keys; cat >/etc/immud/keys/home"
TUNABLES = "/etc/apparmor.d/tunables/home.d/immud"


def shown(machine: VM, name: str) -> str:
    argv = ("busctl", "get-property", "org.immud1", "/org/immud1", "org.immud1.Manager", name)
    return machine.run(*argv).stdout


def problems(machine: VM) -> list[tuple[str, str]]:
    """The problems on the bus but notices, as code and text."""
    manager = ("org.immud1", "/org/immud1", "org.immud1.Manager", "Problems")
    told = json.loads(machine.run("busctl", "get-property", "-j", *manager).stdout)
    return [(code, text) for level, code, text, _ in told["data"] if level != "notice"]


def warnings(machine: VM) -> set[str]:
    """What anybody but the kernel warned of in this boot, without numbers."""
    told = set(machine.messages("-b", "-p", "warning")) - set(machine.messages("-k"))
    return {re.sub(r"[0-9]+", "N", text) for text in told}


def immutable(machine: VM) -> None:
    """Nothing is wrong with this boot."""
    assert problems(machine) == []
    assert shown(machine, "State") == 's "running"\n'
    assert machine.failed_units() == []
    assert machine.system_state() == "running"
    assert complaints(machine) == []


def clean_shutdown(machine: VM, console: str) -> None:
    """Nothing was wrong with the shutdown that the console shows, and the journal has it all."""

    def journal(pattern: str) -> str:
        return machine.run("journalctl", "-b-1", "-ocat", "-g", pattern, check=False).stdout

    assert failures(console, journal) == set()
    said = machine.messages("-b", "-1")
    assert said[0].startswith("Linux version")
    assert said[-1] == "Journal stopped"


def become_immutable(machine: VM, append: str = "") -> None:
    """From a booted stock Debian to its first immutable boot, which is looked at closely."""
    before = warnings(machine)
    machine.run("sh", "-ec", PREPARE, input=EARLY_BIRD)
    machine.reboot(append=append)
    immutable(machine)
    assert warnings(machine) - before == set()
    assert machine.run("systemctl", "is-active", "early-bird").stdout == "active\n"
    assert machine.messages("-b")[0].startswith("Linux version")
    status, *told = machine.shell(SANE).splitlines()
    assert "Running; / and /usr read-only" in status
    assert told == ANSWERS
    assert "a letter" in machine.run("python3", "-c", LOG_IN).stdout
    machine.shell("echo kept >/etc/kept; echo kept >/var/lib/kept")


def in_and_out(machine: VM, drive: Drive) -> None:
    """A tomb is opened, pulled out under a writer, and nothing of it is left."""
    machine.run("sh", "-c", PUT_KEY, input=PASSPHRASE)
    configure(machine, f'uuid = "{drive.uuid}"\n{KEY}')
    machine.plug(drive)
    wait_for(machine, "open")
    assert machine.run("cat", f"/home/{LETTER}", user="alice").stdout == CONTENT[LETTER]
    machine.shell(WRITE)
    machine.yank(drive)
    wait_for(machine, "absent")
    assert_no_residue(machine)
    wait_ended(machine, "writers")
    configure(machine, "")


def test_a_stock_debian_13_becomes_immutable(installed_vm: VM) -> None:
    become_immutable(installed_vm)
    clean_shutdown(installed_vm, installed_vm.reboot(append="immud=off"))
    kept = installed_vm.run("cat", "/etc/kept", "/var/lib/kept", "/home/alice/written")
    assert kept.stdout == "kept\nkept\n"
    assert shown(installed_vm, "State") == 's "off"\n'
    assert installed_vm.system_state() == "running"
    installed_vm.run("touch", "/usr/x", "/x")


def test_a_stock_debian_12_becomes_immutable_apparmor_and_all(
    bookworm_vm: VM, home_drive: Drive
) -> None:
    bookworm_vm.boot(append="apparmor=1")
    become_immutable(bookworm_vm, "apparmor=1")
    # AppArmor's profiles know where the links lead, and no more of it after a release.
    bookworm_vm.shell("systemctl reload apparmor; aa-status --enabled")
    assert "/var/home" in bookworm_vm.run("cat", TUNABLES).stdout
    in_and_out(bookworm_vm, home_drive)
    bookworm_vm.run("immud", "release")
    bookworm_vm.shell(f"systemctl reload apparmor; aa-status --enabled; test ! -e {TUNABLES}")
    told = bookworm_vm.shell("stat -c %F /home /root /usr/local; cat /home/alice/Doc*/letter.txt")
    assert told.splitlines() == ["directory", "directory", "directory", "a letter"]
    console = bookworm_vm.reboot()
    clean_shutdown(bookworm_vm, console)
