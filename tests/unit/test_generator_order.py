"""What the generator has immud.service wait for: sources, fstab, units of somebody's own."""

import subprocess
from pathlib import Path

import pytest

from tests.support.generator import CLONES, FSTAB_VAR, OWN_ETC, OWN_VAR, SPARED, USUAL, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


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


@pytest.mark.parametrize("place", ["etc", "run", "usr/local/lib", "usr/lib"])
def test_nothing_waits_for_a_row_with_a_unit_of_somebodys_own(machine: Machine, place: str) -> None:
    """It may be a network's, which waits for immud.service."""
    machine.plan()
    machine.write(f"{place}/systemd/system/usr-local.mount", "[Mount]\nWhat=a:/b\n")
    clones = CLONES.replace(" usr-local.mount", "")
    assert machine.generate() == {"immud.service": (f"After={clones}",), **OWN_VAR}


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


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize(
    ("field", "unit"),
    [
        (r"/home/\alice", r"home-\x5calice.mount"),
        (r"/home/\040\400", r"home-\x20\x5c400.mount"),
        (r"/home/\\040\04", r"home-\x5c\x20\x5c04.mount"),
        (r"/home/\134040\n", r"home-\x5c040\x5cn.mount"),
        (r"/home/gr\303\266\303\237e", r"home-gr\xc3\xb6\xc3\x9fe.mount"),
    ],
)
def test_a_backslash_of_fstab_that_begins_no_escape_stays_one(
    machine: Machine, field: str, unit: str, shell: str
) -> None:
    machine.plan()
    machine.fstab(f"LABEL=d {field} ext4 defaults 0 2\n")
    assert unit in machine.generate(shell)


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
