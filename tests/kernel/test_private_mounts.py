"""A mount namespace for a while."""

import os
from pathlib import Path

from immud.early import kernel
from immud.private_mounts import private_mounts
from tests.support.namespaces import in_namespace


@in_namespace
def test_a_chroot_and_the_working_directory_are_what_they_were(tmp_path: Path) -> None:
    kernel.mount(str(tmp_path), str(tmp_path), None, kernel.MS_BIND)
    for name in ("proc", "here", "there"):
        (tmp_path / name).mkdir()
    kernel.mount("proc", str(tmp_path / "proc"), "proc", 0)
    os.chroot(tmp_path)
    os.chdir("/here")
    with private_mounts():
        kernel.mount("tmpfs", "/there", "tmpfs", 0)
        Path("/there/x").touch()
    assert os.getcwd() == "/here"
    assert sorted(os.listdir("/")) == ["here", "proc", "there"]
    assert os.listdir("/there") == []
