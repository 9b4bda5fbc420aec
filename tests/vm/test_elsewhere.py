"""/etc and /var on a drive, found by label: there, then missing."""

from pathlib import Path

from tests.support.drive import plain
from tests.support.layout import complaints
from tests.support.vm import VM
from tests.vm.test_boot import immutable, problems, shown

CONFIGURE = """
cat >/etc/immud/immud.toml <<end
[boot]
wait = 40
[etc]
source = "LABEL=data:/etc"
[var]
source = "LABEL=data:/var"
end
echo 'tmpfs /var/scratch tmpfs mode=700 0 0' >>/etc/fstab
immud enable --seed
mount LABEL=data /run/data -o X-mount.mkdir
cd /run/data/etc/systemd/system
cat >new.service <<end
[Unit]
Requires=immud-sources.target
After=immud-sources.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/touch /var/lib/new
[Install]
WantedBy=multi-user.target
end
systemctl --root=/run/data -q enable new.service
cp new.service /etc/systemd/system/held.service
systemctl -q enable held.service
cd /
umount /run/data
"""


def test_etc_and_var_on_a_drive(vm: VM, tmp_path: Path) -> None:
    data = plain(tmp_path / "data", label="data")
    vm.plug(data)
    vm.wait_until("test -e /dev/disk/by-label/data")
    vm.shell(CONFIGURE, timeout=120)
    vm.reboot(drives=[data])

    immutable(vm)
    where = vm.shell("for d in /etc /var /var/scratch; do findmnt -no SOURCE,FSROOT $d; done")
    assert [line.split()[-1] for line in where.splitlines()] == ["/etc", "/var", "/"]
    assert vm.messages("-b", "-p", "warning", "-u", "immud") == []
    # enabled in the /etc of the drive, and started in the boot that showed it
    assert vm.run("systemctl", "is-active", "new").stdout == "active\n"
    assert vm.messages("-b")[0].startswith("Linux version")
    vm.shell("echo kept >/etc/kept; echo kept >/var/lib/kept; mount -t tmpfs | grep scratch")

    # It is not there now: no need to wait as long as for a slow one.
    vm.shell("sed -i 's/^wait = .*/wait = 5/' /etc/immud/immud.toml; immud enable")
    vm.reboot()
    assert shown(vm, "State") == 's "degraded"\n'
    assert [code for code, _ in problems(vm)].count("source-missing") == 2
    assert "/etc is the one on the disk" in vm.console
    assert "/var is the one on the disk" in vm.console
    vm.wait_for_console("login:(?s:.)*login:")
    assert vm.run("systemctl", "is-active", "held", check=False).stdout == "inactive\n"
    assert not vm.succeeds("test", "-e", "/etc/kept", "-o", "-e", "/var/lib/new")
    assert complaints(vm) == []
