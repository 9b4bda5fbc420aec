"""The tunables, read by AppArmor's own parser."""

import os
import shutil
import subprocess

from immud.adopt import apparmor
from immud.adopt.execute import write_file
from immud.adopt.steps import WriteFile
from immud.config.layout import SILVERBLUE
from immud.early import kernel
from tests.support.namespaces import in_namespace

PROFILE = """\
include <tunables/global>
profile test /usr/bin/test {
  owner @{HOME}/notes r,
  /home/*/letter r,
  "/srv/web pages/index" r,
}
"""


def rules() -> str:
    """The rules of the profile, as the parser understands them."""
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--debug"]
    done = subprocess.run(
        command, input=PROFILE, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@in_namespace
def test_the_parser_reads_the_file_and_applies_the_aliases() -> None:
    others = "/tmp"
    kernel.mount("tmpfs", others, "tmpfs", 0)
    shutil.copytree(apparmor.TUNABLES, f"{others}/home.d")
    kernel.mount("tmpfs", apparmor.TUNABLES, "tmpfs", 0)
    shutil.copytree(f"{others}/home.d", apparmor.TUNABLES, dirs_exist_ok=True)
    assert os.path.ismount(apparmor.TUNABLES)

    assert "/var/home" not in rules()
    write_file(WriteFile(apparmor.FILE, apparmor.text(SILVERBLUE)))
    seen = rules()
    assert "(/var/home/*/letter)" in seen
    assert "(/var/srv/web pages/index)" in seen
    (notes,) = (line for line in seen.splitlines() if line.endswith("/notes)"))
    assert "/var/home//*" in notes
    assert "/var/roothome" in notes
