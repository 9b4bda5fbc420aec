"""The generator, run for real on trees of files; systemd's own tools judge what it writes."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from immud.config.layout import SILVERBLUE
from immud.early.plan import BootPlan, encode

TOP = Path(__file__).parents[2]
GENERATOR = TOP / "units/immud-generator"
WANTS = "etc/systemd/system/local-fs.target.wants/immud.service"

CLONES = "home.mount opt.mount srv.mount root.mount usr-local.mount mnt.mount media.mount"


def bound(path: str) -> tuple[str, ...]:
    return (
        f"Description={path}, as immud.service mounts it",
        "DefaultDependencies=no",
        "After=immud.service",
        "[Mount]",
        f"What={path}",
        f"Where={path}",
        "Options=bind",
    )


OWN_VAR = {"var.mount": bound("/var")}
OWN_ETC = {"etc-immud.mount": bound("/etc/immud")}
USUAL = {"immud.service": (f"After={CLONES}",), **OWN_VAR}
SPARED = ("DefaultDependencies=no", "After=local-fs-pre.target")
FSTAB_VAR = "UUID=11-22 /var ext4 defaults 0 2\n"


class Machine:
    """A tree of files as the generator finds it at boot."""

    def __init__(self, root: Path) -> None:
        self.root = root / "root"
        self.normal = root / "normal"
        self.normal.mkdir()
        self.write("proc/cmdline", "root=/dev/sda1 ro quiet\n")
        self.write("etc/fstab", "# <file system>\nUUID=ab / ext4 errors=remount-ro 0 1\n\n")
        link = self.root / WANTS
        link.parent.mkdir(parents=True)
        link.symlink_to("/usr/lib/systemd/system/immud.service")

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def plan(self, path: str = "etc/immud/boot.plan", **values: object) -> Path:
        values.setdefault("configs", (("/etc/immud/immud.toml", b'[usr]\nusr\t/x\n"\n'),))
        return self.write(path, encode(BootPlan(rows=SILVERBLUE, **values)))  # type: ignore[arg-type]

    def fstab(self, text: str) -> None:
        self.write("etc/fstab", text)

    def generate(self, shell: str = "sh") -> Mapping[str, tuple[str, ...]]:
        """Run it; unit names, and what it says of each from [Unit] on."""
        place = str(self.normal)
        done = subprocess.run(
            [shell, GENERATOR, place, place, place, str(self.root)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout + done.stderr == ""
        found = {}
        for file in (*self.normal.glob("*.d/50-immud.conf"), *self.normal.glob("*.mount")):
            comment, section, *lines = file.read_text().splitlines()
            assert (comment[0], section) == ("#", "[Unit]")
            unit = file.name if file.suffix == ".mount" else file.parent.name.removesuffix(".d")
            found[unit] = tuple(lines)
        return found


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


@pytest.mark.parametrize(
    ("source", "unit"),
    [
        ("LABEL=var", "dev-disk-by\\x2dlabel-var.device"),
        ("UUID=0a-b1", "dev-disk-by\\x2duuid-0a\\x2db1.device"),
        ("PARTLABEL=v:/sub/dir", "dev-disk-by\\x2dpartlabel-v.device"),
        ("PARTUUID=1:/", "dev-disk-by\\x2dpartuuid-1.device"),
    ],
)
@pytest.mark.parametrize("tree", ["usr", "etc", "var"])
def test_a_source_on_a_device_is_waited_for(
    machine: Machine, tree: str, source: str, unit: str
) -> None:
    machine.plan(wait=7, **{tree: source})
    assert machine.generate() == {
        "immud.service": (f"Wants={unit}", f"After={unit} {CLONES}"),
        unit: ("JobRunningTimeoutSec=7s",),
        **OWN_VAR,
        **(OWN_ETC if tree == "etc" else {}),
    }


def test_two_sources_on_two_devices(machine: Machine) -> None:
    machine.plan(usr="LABEL=u", etc="LABEL=e:/etc", var="LABEL=e:/var")
    usr, etc = (f"dev-disk-by\\x2dlabel-{name}.device" for name in "ue")
    assert machine.generate()["immud.service"] == (
        f"Wants={usr} {etc} {etc}",
        f"After={usr} {etc} {etc} {CLONES}",
    )


LABELS = ["my disk", "a/b", ".x", "größe", "a%b\\c", "x-y_z:1=2,3", "'\"$(id)`;&", "日本", "tab\tx"]


def udev_link(label: str) -> str:
    """As encode_devnode_name() of systemd's src/shared/device-nodes.c says."""
    return "".join(
        c if not c.isascii() or c.isalnum() or c in "#+-.:=@_" else f"\\x{ord(c):02x}"
        for c in label
    )


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("label", LABELS)
def test_device_units_are_named_as_systemd_names_them(
    machine: Machine, label: str, shell: str
) -> None:
    machine.plan(var=f"LABEL={label}")
    expected = subprocess.run(
        ["systemd-escape", "--path", "--suffix=device", f"/dev/disk/by-label/{udev_link(label)}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.rstrip("\n")
    assert set(machine.generate(shell)) == {"immud.service", "var.mount", expected}


def test_a_var_partition_comes_first_and_is_left_to_its_own_unit(machine: Machine) -> None:
    machine.plan()
    machine.fstab(FSTAB_VAR)
    assert machine.generate() == {"immud.service": (f"After=var.mount {CLONES}",)}


@pytest.mark.parametrize("place", ["etc", "run", "usr/local/lib", "usr/lib"])
def test_so_is_one_with_a_unit_of_somebodys_own(machine: Machine, place: str) -> None:
    machine.plan()
    machine.write(f"{place}/systemd/system/var.mount", "[Mount]\nWhat=/dev/sdb\nWhere=/var\n")
    assert machine.generate() == {"immud.service": (f"After=var.mount {CLONES}",)}


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_last_line_of_fstab_counts_without_its_newline(machine: Machine, shell: str) -> None:
    machine.plan()
    machine.fstab("LABEL=h /home ext4 defaults 0 2\n" + FSTAB_VAR.rstrip())
    assert "var.mount" not in machine.generate(shell)
    machine.fstab("UUID=11-22 /var")
    assert machine.generate(shell)["immud.service"] == (f"After=var.mount {CLONES}",)


def test_mounts_below_a_covered_tree_come_after(machine: Machine) -> None:
    machine.plan()
    machine.fstab(
        "LABEL=l\t/var/log/\text4 defaults 0 2\n"
        "LABEL=d /home/my\\040data ext4 defaults 0 2\n"
        "LABEL=e /etc/pki ext4\n"
        "LABEL=u /usr/local ext4\n"
        "LABEL=s /usr/share/my\\040data ext4\n"
        "/dev/sdx /variety ext4\n"
        "/dev/sdy /home ext4\n"
        "/dev/sdz none swap sw 0 0\n"
        "/var/swapfile none swap sw 0 0\n"
        "# /dev/sdz /var/x ext4\n"
        "proc /proc proc defaults 0 0\n"
    )
    after = ("After=immud.service",)
    assert machine.generate() == {
        **OWN_VAR,
        "immud.service": ("After=opt.mount srv.mount root.mount mnt.mount media.mount",),
        "usr-local.mount": after,
        "usr-share-my\\x20data.mount": after,
        "var-log.mount": after,
        "home-my\\x20data.mount": after,
        "etc-pki.mount": after,
        "var-swapfile.swap": after,
    }


def test_the_file_system_that_holds_a_source_comes_first(machine: Machine) -> None:
    machine.plan(usr="/data/usr.erofs", etc="/elsewhere/etc")
    machine.fstab("LABEL=d /data ext4\nLABEL=e /data/usr ext4\nLABEL=f /dat ext4\n")
    assert machine.generate() == {
        "immud.service": ("Wants=data.mount", f"After=data.mount {CLONES}"),
        "data.mount": SPARED,
        **OWN_VAR,
        **OWN_ETC,
    }


def test_the_file_system_that_holds_usr_stays_to_the_end(machine: Machine) -> None:
    machine.plan(usr="/var/data/deep/usr.erofs")
    mine = "LABEL=d /var/data ext4 defaults 0 2\nLABEL=e /var/data/deep ext4 nofail\n"
    machine.fstab(mine + "LABEL=f /var/data/deep/usr ext4 defaults 0 2\n")
    made = machine.generate()
    assert made["var-data.mount"] == made["var-data-deep.mount"] == SPARED
    assert made["var-data-deep-usr.mount"] == ("After=immud.service",)


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        ("LABEL=my\\040data", "dev-disk-by\\x2dlabel-my\\x5cx20data"),
        ("UUID=11-22", "dev-disk-by\\x2duuid-11\\x2d22"),
        ("/dev/sda3", "dev-sda3"),
    ],
)
def test_nor_does_who_checked_it_take_it_along(machine: Machine, spec: str, device: str) -> None:
    machine.write("usr/lib/systemd/system/systemd-fsck@.service", "[Unit]\nConflicts=x\nAfter=y\n")
    machine.plan(usr="/data/usr.erofs")
    machine.fstab(f"{spec} /data ext4 defaults 0 2\n")
    assert machine.generate()["immud.service"][0] == "Wants=data.mount"
    checker = machine.normal / f"systemd-fsck@{device}.service"
    assert checker.read_text() == "[Unit]\nAfter=y\n[Service]\nSlice=system.slice\n"


def test_so_does_a_var_of_fstab_that_holds_it(machine: Machine) -> None:
    machine.plan(usr="/var/usr.erofs")
    machine.fstab(FSTAB_VAR)
    assert machine.generate()["var.mount"] == SPARED


def test_a_source_on_a_file_system_below_var_waits_for_it_and_not_the_other_way(
    machine: Machine,
) -> None:
    machine.plan(usr="/var/data/usr.erofs")
    machine.fstab("LABEL=d /var/data ext4\n")
    made = machine.generate()
    assert set(made) == {"immud.service", "var.mount", "var-data.mount"}
    assert "After=systemd-remount-fs.service" in made["var.mount"]


def test_a_source_on_the_root_file_system_delays_nothing(machine: Machine) -> None:
    machine.plan(usr="/images/usr.erofs", etc="/elsewhere/etc")
    assert machine.generate() == {**USUAL, **OWN_ETC}


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
    machine.generate()


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
    (own / "local-fs.target.wants").mkdir(parents=True)
    for unit in (TOP / "units").glob("immud*"):
        if unit.suffix in (".service", ".target"):
            (own / unit.name).write_bytes(unit.read_bytes())
    (own / "local-fs.target.wants/immud.service").symlink_to(own / "immud.service")
    places = (machine.normal, own, generated, "/usr/lib/systemd/system")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "default.target"],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": ":".join(map(str, places)), "PATH": os.environ["PATH"]},
    )
    said = [line for line in done.stderr.splitlines() if "cycle" in line or str(tmp_path) in line]
    assert said == []
