"""The names of units, as systemd-escape(1) would write them."""

import subprocess

import pytest

from immud.integration.hooks import Event, unit_name
from immud.integration.targets import target_of
from immud.systemd import NAME_MAX, escape
from immud.tomb.absence import booting


@pytest.mark.parametrize("text", ["home", "my-tomb", "a_b:c.d", ".a", "a.", "ü é", "a/b\\c", "%i$"])
def test_escaped_as_systemd_does_it(text: str) -> None:
    said = subprocess.run(["systemd-escape", text], capture_output=True, text=True, check=True)
    assert escape(text) == said.stdout.removesuffix("\n")


def test_the_units_that_mount_a_place() -> None:
    assert booting.up_to("/var/my-homes") == ("/var", "/var/my-homes")
    for kind, unit in zip(("mount", "automount"), booting.of("/var/my-homes"), strict=True):
        command = ["systemd-escape", "--path", f"--suffix={kind}", "/var/my-homes"]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert unit == said.stdout.removesuffix("\n")


def test_the_target_of_a_tomb() -> None:
    assert target_of("home") == "immud-tomb@home.target"
    assert target_of("my-tomb") == r"immud-tomb@my\x2dtomb.target"


def test_a_hook_s_unit_has_a_name_systemd_takes() -> None:
    path = "/etc/immud/hooks.d/closing/10-sync mail"
    assert unit_name(Event.CLOSING, "home", path) == (
        r"immud-hook-home-closing-10-sync\x20mail.service"
    )
    assert len(unit_name(Event.LOST, "x" * 31, "ü" * 127)) == NAME_MAX
