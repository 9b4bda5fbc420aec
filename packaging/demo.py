"""The demonstration: what a person sees who installs immud, on a machine that is thrown away.

The machine is the one the tests use; what is shown is typed in it and printed as it answers.
"""

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import cache, image, stages
from tests.support.drive import LETTER, PASSPHRASE, Drive, luks
from tests.support.process import HarnessError
from tests.support.vm import VM

TTY = sys.stdout.isatty()
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if TTY else ("", "", "")

CONFIGURATION = """\
[tomb.home]
uuid = "{uuid}"
key = "/etc/immud/keys/home"
"""
BUS = "org.immud1 /org/immud1 org.immud1.Manager"


def say(text: str) -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    say(f"\n{BOLD}{text}{PLAIN}\n")


@contextlib.contextmanager
def part(text: str) -> Iterator[None]:
    """A part that takes a while: what it is, and how long it has been going on."""
    began = time.monotonic()
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.5 if TTY else 15):
            seconds = time.monotonic() - began
            print(f"\r  {text} … {seconds:3.0f} s" if TTY else f"  … {seconds:.0f} s", end="")
            print("" if TTY else "\n", end="", flush=True)

    if not TTY:
        say(f"  {text} …")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
    seconds = time.monotonic() - began
    say(f"\r  {text}: {seconds:.1f} s   " if TTY else f"  {text}: {seconds:.1f} s")


def show(machine: VM, command: str, *, user: str = "root") -> None:
    """Type `command` in the machine, and print what it says whether it succeeds or not."""
    prompt = "#" if user == "root" else f"{user}$"
    say(f"{DIM}{prompt}{PLAIN} {BOLD}{command}{PLAIN}")
    done = machine.run("sh", "-c", f"exec 2>&1; {command}", check=False, user=user)
    say("".join(f"  {line}\n" for line in done.stdout.splitlines()))


def plug(machine: VM, drive: Drive) -> None:
    stopwatch = machine.stopwatch("/var/home", "mounted")
    machine.plug(drive)
    seen = machine.measured(stopwatch)
    if "mounted" not in seen:
        raise HarnessError("the tomb did not open: " + "; ".join(machine.messages("-u", "immud")))
    say(f"  … plugged in; /var/home is mounted {seen['mounted'] - seen['add']:.2f} s later.\n")


def pull(machine: VM, drive: Drive) -> None:
    stopwatch = machine.stopwatch("/var/home", "gone")
    machine.yank(drive)
    seen = machine.measured(stopwatch)
    if "gone" not in seen:
        raise HarnessError("the tomb is still there: " + "; ".join(machine.messages("-u", "immud")))
    say(f"  … pulled out; nothing of it is mounted {seen['gone'] - seen['remove']:.2f} s later.\n")
    machine.wait_until(f"busctl get-property {BUS} HomeTomb | grep -q '\"/\"'")


def demonstrate(machine: VM, drive: Drive) -> None:
    heading("1. A stock Debian, with the package installed. Nothing has changed yet.")
    with part("booting it"):
        machine.boot()
    show(machine, ". /etc/os-release; echo $PRETTY_NAME; dpkg -l immud | tail -n 1")
    show(machine, "ls -ld /home /root /opt /srv /usr/local")
    show(machine, "touch /usr/scribble && rm -v /usr/scribble")

    heading("2. Adopt the layout, name the drive that carries the home, and reboot.")
    machine.shell("umask 077; mkdir -p /etc/immud/keys")
    machine.run("sh", "-c", "umask 077; cat >/etc/immud/keys/home", input=PASSPHRASE)
    table = CONFIGURATION.format(uuid=drive.uuid)
    machine.run("sh", "-c", "cat >/etc/immud/immud.toml", input=table)
    show(machine, "cat /etc/immud/immud.toml")
    show(machine, "immud adopt")
    show(machine, "immud enable")
    with part("rebooting"):
        machine.reboot()

    heading("3. Immutable: /usr and / are read-only, /etc and /var are not, /home is a link.")
    show(machine, "systemctl is-system-running")
    show(
        machine,
        "touch /usr/scribble /scribble /etc/note /var/note; ls /etc/note /var/note",
    )
    show(machine, "for m in / /usr /etc /var; do findmnt -n -o TARGET,OPTIONS $m; done")
    show(machine, "ls -ld /home /root /opt /srv /usr/local")
    show(machine, "immud status")
    show(machine, "busctl tree org.immud1")
    show(machine, f"busctl get-property {BUS} State UsrReadOnly RootReadOnly HomeTomb")

    heading("4. A hand plugs in the drive.")
    plug(machine, drive)
    show(machine, "findmnt /var/home")
    show(machine, f"ls -la /home/alice; cat /home/{LETTER}", user="alice")
    tomb = "org.immud1 /org/immud1/tomb/home org.immud1.Tomb"
    show(machine, f"busctl get-property {tomb} State UUID Device Mapper MountPoint")
    show(machine, "systemctl status immud-tomb.target --no-pager | head -n 3")

    heading("5. The hand pulls it out, while a program has a file open on it.")
    machine.start("runuser", "-u", "alice", "--", "tail", "-f", f"/home/{LETTER}")
    pull(machine, drive)
    show(machine, "findmnt /var/home; dmsetup ls; pgrep -a tail || echo 'nobody is left in there'")
    show(machine, f"busctl get-property {tomb} State")
    show(machine, "systemctl is-system-running")

    heading("6. And plugs it in again.")
    plug(machine, drive)
    show(machine, f"cat /home/{LETTER}", user="alice")
    with part("shutting down"):
        said = machine.poweroff()
    failures = [line for line in said.splitlines() if "FAILED" in line]
    say("\n".join(failures) or "  no unit failed on the way down")


def main() -> int:
    stages.announce = lambda text: say(f"  {text[2:]}")
    heading("0. What is needed: the package, a Debian 13 disk, a drive with somebody's home.")
    try:
        with part("the disk with the package installed"):
            disk = image.installed("trixie")
        with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
            with part("the drive"):
                drive = luks(Path(place) / "drive")
            with VM(disk) as machine:
                demonstrate(machine, drive)
    except HarnessError as error:
        say(f"\npackaging/demo: {error}")
        for note in getattr(error, "__notes__", ()):
            say(note)
        return 1
    heading("That was all. README.md says how to put it on a machine of yours.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
