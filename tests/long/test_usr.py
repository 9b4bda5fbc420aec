"""/usr from an image file on a file system of its own, mounted below /var by fstab."""

import shutil
from pathlib import Path

from tests.support.drive import plain
from tests.support.vm import VM
from tests.vm.test_usr import configure, from_the_image


def test_a_file_on_a_file_system_of_fstab(vm: VM, usr_image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.move(usr_image, tree / "usr.erofs")
    data = plain(tmp_path / "data", label="data", content=tree)
    vm.plug(data)
    vm.wait_until("test -e /dev/disk/by-label/data")
    vm.shell("echo 'LABEL=data /var/data ext4 defaults 0 2' >>/etc/fstab; mkdir /var/data")
    vm.shell("systemctl daemon-reload; mount /var/data")
    configure(vm, "/var/data/usr.erofs")
    vm.reboot(drives=[data])
    from_the_image(vm)
    assert "FAILED" not in vm.poweroff()
