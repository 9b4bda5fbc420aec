"""The generator, run for real on trees of files; systemd's own tools judge what it writes."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.generator import (
    CLONES,
    FSTAB_VAR,
    OWN_VAR,
    TOP,
    USUAL,
    WANTS,
    Machine,
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_usual_machine_waits_for_nothing(machine: Machine, shell: str) -> None:
    machine.plan()
    assert machine.generate(shell) == USUAL


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_what_would_write_to_the_wrong_var_is_held_back(machine: Machine, shell: str) -> None:
    machine.plan(var="/data/var", hold=("db@main.service", "web\\x2dserver.service"))
    held = ("Requires=immud-sources.target", "After=immud-sources.target")
    found = machine.generate(shell)
    assert found["db@main.service"] == found["web\\x2dserver.service"] == held


def test_logins_wait_for_homes_where_the_plan_says_so(machine: Machine) -> None:
    machine.plan()
    assert "systemd-user-sessions.service" not in machine.generate()
    machine.plan(logins=True)
    assert machine.generate()["systemd-user-sessions.service"] == ("Wants=immud-fallback.service",)


TOMBS = ("/var/home", "/var/home/a b", "/var/lib/papers")


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_tombs_are_unmounted_after_the_daemon(machine: Machine, shell: str) -> None:
    machine.plan(tombs=TOMBS)
    machine.fstab("LABEL=h /var/homes ext4 defaults 0 2\n")
    assert machine.generate(shell) == {
        "immud.service": (
            f"After={CLONES} var-home.mount var-home-a\\x20b.mount var-lib-papers.mount",
        ),
        "var-homes.mount": ("After=immud.service",),
        **OWN_VAR,
    }


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_but_not_where_something_else_is_mounted_there_or_above(
    machine: Machine, shell: str
) -> None:
    machine.plan(tombs=TOMBS)
    machine.fstab("LABEL=h /var/home ext4 noauto 0 2\n")
    machine.write("etc/systemd/system/var-lib-papers.mount", "")
    found = machine.generate(shell)
    assert found["immud.service"] == (f"After={CLONES}",)
    assert found["var-home.mount"] == ("After=immud.service",)


def test_nothing_happens_where_immud_is_not_enabled(machine: Machine) -> None:
    machine.plan()
    (machine.root / WANTS).unlink()
    assert machine.generate() == {}
    assert not list(machine.normal.iterdir())


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_switched_off_on_the_kernel_command_line(machine: Machine, shell: str) -> None:
    machine.plan()
    machine.write("proc/cmdline", "quiet immud=official")
    assert machine.generate(shell) == USUAL
    machine.write("proc/cmdline", "quiet immud=off")
    (machine.normal / "immud.service.d/50-immud.conf").unlink()
    (machine.normal / "var.mount").unlink()
    assert machine.generate(shell) == {}


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize(
    ("words", "booted"),
    [
        ("ro systemd.unit=kiosk.target quiet", "kiosk.target"),
        ("systemd.unit=at\\x2dnight@2.target", "at\\x2dnight@2.target"),
        ("ro 3", "multi-user.target"),
        ("5", "graphical.target"),
        ("3 systemd.unit=kiosk.target", "kiosk.target"),
        ("systemd.unit=kiosk.target 3", "multi-user.target"),
        ("rd.systemd.unit=x.target systemd.unit= systemd.unit=$(x) root=5 33", ""),
    ],
)
def test_a_boot_is_complete_with_the_target_that_it_was_asked_for(
    machine: Machine, words: str, booted: str, shell: str
) -> None:
    unit = "immud-boot-complete.service"
    machine.write("proc/cmdline", words + "\n")
    machine.plan()
    asked = (
        f"After={booted}",
        "[Service]",
        "ExecCondition=",
        "ExecCondition=/bin/systemctl --quiet is-active " + booted.replace("\\", "\\\\"),
    )
    expected = {**USUAL, unit: asked} if booted else USUAL
    assert machine.generate(shell) == expected
    # and at a reload
    machine.plan("run/immud/plan")
    assert machine.generate(shell) == expected


def test_switched_off_in_a_container(machine: Machine) -> None:
    machine.plan()
    machine.write("run/systemd/container", "systemd-nspawn")
    machine.write("proc/1/cmdline", b"/sbin/init\0immud=off\0")
    assert machine.generate() == {}


def test_enabled_since_the_boot(machine: Machine) -> None:
    machine.plan()
    machine.write("run/immud/later", "")
    assert machine.generate() == {}
    # The plan that this boot was laid out by counts all the same.
    machine.plan("run/immud/plan")
    assert machine.generate() == USUAL


def test_a_reload_goes_by_the_plan_of_this_boot(machine: Machine) -> None:
    """Another /etc may be mounted by then, where immud is not enabled at all."""
    machine.plan("run/immud/plan", var="UUID=abc")
    machine.write("proc/cmdline", "immud=off")
    (machine.root / WANTS).unlink()
    assert "Wants=dev-disk-by\\x2duuid-abc.device" in machine.generate()["immud.service"]


def test_a_plan_that_is_gone_is_compiled_at_boot(machine: Machine) -> None:
    assert machine.generate() == OWN_VAR


def test_a_newer_systemd_restarts_it_without_failing_first(machine: Machine) -> None:
    machine.plan()
    machine.write("usr/lib/systemd/systemd-executor", "")
    machine.generate()
    written = machine.normal / "immud.service.d/50-restart.conf"
    assert written.read_text() == "[Service]\nRestartMode=direct\n"


def test_a_torn_plan_and_no_fstab_are_survived(machine: Machine) -> None:
    machine.write("etc/immud/boot.plan", "immud-plan\t1\nusr\t/us")
    (machine.root / "etc/fstab").unlink()
    assert machine.generate() == OWN_VAR


@pytest.mark.parametrize(
    ("values", "fstab"),
    [
        ({}, ""),
        ({}, FSTAB_VAR + "LABEL=log /var/log ext4 defaults 0 2\n/var/swap none swap sw 0 0\n"),
        ({}, "LABEL=local /usr/local ext4 defaults 0 2\n"),
        ({"var": "LABEL=var:/sub"}, "LABEL=home /home ext4 defaults 0 2\n"),
        ({"etc": "LABEL=e", "usr": "/data/usr.img"}, "LABEL=d /data ext4 defaults 0 2\n"),
        ({"usr": "/var/data/usr.img"}, "LABEL=d /var/data ext4 defaults 0 2\n"),
        ({"tombs": TOMBS}, ""),
        ({"tombs": TOMBS}, "LABEL=d /var/home ext4 defaults 0 2\n"),
        ({"tombs": TOMBS}, FSTAB_VAR + "LABEL=d /var/home/x ext4 defaults 0 2\n"),
    ],
)
def test_systemd_finds_no_cycle_and_understands_every_line(
    machine: Machine, tmp_path: Path, values: Mapping[str, object], fstab: str
) -> None:
    machine.plan(**values)
    machine.fstab(fstab)
    machine.generate()
    generated = tmp_path / "fstab-units"
    generated.mkdir()
    subprocess.run(
        ["/usr/lib/systemd/system-generators/systemd-fstab-generator", *[generated] * 3],
        check=True,
        env={"SYSTEMD_FSTAB": str(machine.root / "etc/fstab"), "PATH": os.environ["PATH"]},
    )
    own = tmp_path / "own"
    assert verified(machine, own, generated) == []


SHARE = "[Mount]\nWhat=server:/srv\nWhere=/srv\nType=nfs\n"


def test_nor_a_cycle_with_a_share_that_a_unit_mounts(machine: Machine, tmp_path: Path) -> None:
    machine.plan()
    unit = machine.write("etc/systemd/system/srv.mount", SHARE)
    machine.generate()
    own = tmp_path / "own"
    for wanted in (
        *("remote-fs.target.wants/srv.mount", "network-online.target.wants/networkd.service"),
        "multi-user.target.wants/remote-fs.target",
    ):
        link = own / wanted
        link.parent.mkdir(parents=True)
        link.symlink_to("../" + link.name)
    (own / "srv.mount").write_bytes(unit.read_bytes())
    # Its own units are not there wherever this runs.
    (own / "networkd.service").write_text(
        "[Unit]\nDefaultDependencies=no\nAfter=immud.service\nBefore=network.target\n"
        "Wants=network.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n"
    )
    assert verified(machine, own) == []


def verified(machine: Machine, own: Path, *places: Path) -> list[str]:
    """What systemd says of cycles and of these files, with immud's units copied to `own`."""
    (own / "local-fs.target.wants").mkdir(parents=True)
    for unit in (TOP / "units").glob("immud*"):
        if unit.suffix in (".service", ".target"):
            (own / unit.name).write_bytes(unit.read_bytes())
    (own / "local-fs.target.wants/immud.service").symlink_to(own / "immud.service")
    path = (machine.normal, own, *places, "/usr/lib/systemd/system")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "default.target"],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": ":".join(map(str, path)), "PATH": os.environ["PATH"]},
    )
    return [s for s in done.stderr.splitlines() if "cycle" in s or str(machine.root.parent) in s]
