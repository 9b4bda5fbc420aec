"""From plugged in to mounted, and from pulled out to nothing left, in a virtual machine.

One machine, booted once. Three drives alike, with the least possible key derivation: one is immud's
home tomb, one is opened the way systemd offers, by lines in crypttab and fstab and a udev rule with
SYSTEMD_WANTS, and one as a desktop does it, by udisksd and udiskie, which run only while it is
their turn. All are unlocked with a key file and mounted nosuid,nodev; the first two are checked.

Plugged in: from the kernel's `add` of the disk to the mount being there, the drives having been
closed in order before. Pulled out: with a process that holds a file open for writing, from the
kernel's `remove` of the disk until there is neither mount nor mapping nor loop device. Native units
do not survive that (their device is gone and they stay active), so it is done to immud's drive
alone, which is then plugged in a second time, with a log to replay and to be checked.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks.figures import Figure, column, in_turn
from tests.benchmarks.vm import accelerator
from tests.support import cache, image
from tests.support.container import Container, prepared
from tests.support.drive import Drive, luks
from tests.support.image import Image
from tests.support.machines import HOME_UUID, with_tomb
from tests.support.stages import announce
from tests.support.tomb import wait_for
from tests.support.vm import VM, booted

RUNS = 9
NATIVE_UUID = "6d6d7564-0000-4000-8000-6e6174697665"
DESKTOP_UUID = "6d6d7564-0000-4000-8000-6465736b746f"
EXTRA = ("udisks2", "udiskie", "dbus-daemon")

_CRYPTTAB = f"native UUID={NATIVE_UUID} /etc/immud/keys/home luks,noauto\n"
_FSTAB = "/dev/mapper/native /var/native ext4 noauto,nofail,nosuid,nodev 0 2\n"
_RULE = (
    f'SUBSYSTEM=="block", ENV{{ID_FS_UUID}}=="{NATIVE_UUID}", TAG+="systemd", '
    'ENV{SYSTEMD_WANTS}+="systemd-cryptsetup@native.service var-native.mount"\n'
)

_HOLD = """
systemd-run --quiet --collect --unit=writer \
    sh -c 'exec >>/var/home/alice/written; while echo x; do sleep 0.5; done'
until [ -s /var/home/alice/written ]; do sleep 0.05; done
"""
# It does not even try a key file where it would not know how to ask.
_UDISKIE_YML = f"""
program_options: {{automount: true, notify: false, tray: false, password_prompt: ["false"]}}
device_config: [{{id_uuid: "{DESKTOP_UUID}", keyfile: /etc/immud/keys/home}}]
"""
_DESKTOP = """
systemctl start udisks2.service
systemd-run --quiet --collect --unit=udiskie dbus-run-session -- udiskie -c /etc/udiskie.yml -v
until journalctl -b -u udiskie -o cat | grep -q . && pgrep -f '[b]in/udiskie'; do sleep 0.2; done
sleep 5
"""
_PLACE = f"findmnt -no TARGET /dev/mapper/luks-{DESKTOP_UUID}"
_LEAVE = f"""
udisksctl unmount -b /dev/mapper/luks-{DESKTOP_UUID}
udisksctl lock -b /dev/disk/by-uuid/{DESKTOP_UUID}
systemctl stop udiskie.service udisks2.service
"""
_CLOSE = "systemctl stop var-native.mount systemd-cryptsetup@native.service"


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.plug_vs_native`, `tomb.plug_after_yank_vs_native` and `tomb.yank_s`."""
    with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
        ours = luks(Path(place) / "ours", uuid=HOME_UUID, serial="OURS")
        theirs = luks(Path(place) / "theirs", uuid=NATIVE_UUID, serial="THEIRS")
        desktop = luks(Path(place) / "desktop", uuid=DESKTOP_UUID, serial="DESKTOP")
        with VM(booted(all_three(), "bench-tomb")) as machine:
            machine.restore()
            machine.shell("systemctl stop udisks2.service || :")
            sides = {
                "immud": _ours(machine, ours),
                "native": _theirs(machine, theirs),
                "udiskie": _desktops(machine, desktop),
            }
            for side in sides.values():  # once unmeasured: the restored machine is cold
                side()
            taken = in_turn(sides, runs, lambda line: announce(f"plugged, s {line}"))
    facts = {"runs": runs, "accelerator": accelerator(with_tomb())}
    yanks = {"immud": [sample["yank"] for sample in taken["immud"]]}
    again = {
        "immud": [sample["again"] for sample in taken["immud"]],
        "native": [sample["plug"] for sample in taken["native"]],
    }
    return [
        Figure(
            "tomb.plug_vs_native",
            "udev add to mounted, in a virtual machine",
            column(taken, "plug"),
            *("immud", "native", "s", 0.4),
            facts,
        ),
        Figure(
            "tomb.plug_after_yank_vs_native",
            "the same with a log to replay, and native without",
            again,
            *("immud", "native", "s", None),
            facts,
        ),
        Figure(
            "tomb.plug_vs_udiskie",
            "udev add to mounted, in a virtual machine",
            column(taken, "plug"),
            *("immud", "udiskie", "s", 0.5),
            facts,
        ),
        Figure(
            "tomb.yank_s",
            "pulled out with a file open, to nothing left, in a virtual machine",
            yanks,
            *("immud", "", "s", 1.0),
            facts,
        ),
    ]


def all_three() -> Image:
    """The machine that knows a tomb, with the other ways configured for other drives."""
    below = with_tomb(image.installed(extra=EXTRA))
    return prepared(below, "bench-tomb", "configuring the other ways", _configure_others)


def _configure_others(container: Container) -> None:
    for path, text in (
        ("/etc/crypttab", _CRYPTTAB),
        ("/etc/fstab", _FSTAB),
        ("/etc/udev/rules.d/90-native.rules", _RULE),
        ("/etc/udiskie.yml", _UDISKIE_YML),
    ):
        container.run("sh", "-c", f"cat >>{path}", input=text)
    container.run("mkdir", "-p", "/var/native")


def _ours(machine: VM, drive: Drive) -> Callable[[], Mapping[str, float]]:
    def once() -> Mapping[str, float]:
        plug = _plugged(machine, drive, "/var/home")
        wait_for(machine, "open")
        machine.shell(_HOLD)
        pid = machine.stopwatch("/var/home", "nothing")
        machine.yank(drive)
        seen = machine.measured(pid)
        wait_for(machine, "absent")
        again = _plugged(machine, drive, "/var/home")
        wait_for(machine, "open")
        machine.run("immud", "close", "home")
        machine.yank(drive)
        wait_for(machine, "absent")
        return {"plug": plug, "yank": seen["nothing"] - seen["remove"], "again": again}

    return once


def _theirs(machine: VM, drive: Drive) -> Callable[[], Mapping[str, float]]:
    def once() -> Mapping[str, float]:
        plug = _plugged(machine, drive, "/var/native")
        machine.shell(_CLOSE)
        machine.yank(drive)
        machine.wait_until(f"! test -e /dev/disk/by-uuid/{NATIVE_UUID}")
        return {"plug": plug}

    return once


def _desktops(machine: VM, drive: Drive) -> Callable[[], Mapping[str, float]]:
    machine.shell(_DESKTOP)
    machine.plug(drive)
    machine.wait_until(_PLACE)
    where = machine.shell(_PLACE).strip()
    machine.shell(_LEAVE)
    machine.yank(drive)

    def once() -> Mapping[str, float]:
        machine.shell(_DESKTOP)
        plug = _plugged(machine, drive, where)
        machine.shell(_LEAVE)
        machine.yank(drive)
        return {"plug": plug}

    return once


def _plugged(machine: VM, drive: Drive, where: str) -> float:
    """Plug the drive in; seconds from `add` to `where` being mounted."""
    machine.shell("udevadm settle")
    pid = machine.stopwatch(where, "mounted")
    machine.plug(drive)
    seen = machine.measured(pid)
    return seen["mounted"] - seen["add"]
