"""The package's own tests (autopkgtest), run as that would run them."""

from pathlib import Path

from tests.support.container import Container

TESTS = Path(__file__).parents[2] / "packaging/debian/tests"
REBOOT = "#!/bin/sh\necho $1 >/var/tmp/mark\n"


def test_every_test_of_the_package_passes(container: Container) -> None:
    for name in ("command", "immutable"):
        assert f"Tests: {name}\n" in (TESTS / "control").read_text()
        container.disk.write(f"/var/lib/{name}", (TESTS / name).read_text())
    container.disk.write("/var/lib/reboot", REBOOT)
    container.disk.run("chmod", "755", "/var/lib/reboot")
    container.boot()
    container.run("sh", "/var/lib/command")
    mark, marks = "", []
    while True:
        # /tmp is another one after each boot, and so are its files.
        container.run("install", "/var/lib/reboot", "/tmp/autopkgtest-reboot")
        container.run("env", f"AUTOPKGTEST_REBOOT_MARK={mark}", "sh", "/var/lib/immutable")
        asked = container.run("cat", "/var/tmp/mark", check=False).stdout.strip()
        if asked in ("", mark):
            break
        marks.append(mark := asked)
        container.reboot()
    assert marks == ["immutable", "left"]
