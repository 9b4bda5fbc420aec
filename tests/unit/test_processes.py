"""What /proc says of a process."""

import io
import subprocess

import pytest

from immud import processes
from immud.processes import cgroup_of, unit_of, whole

USER = "/user.slice/user-1000.slice"


@pytest.mark.parametrize(
    ("cgroup", "unit", "group"),
    [
        (f"{USER}/session-3.scope", "session-3.scope", f"{USER}/session-3.scope"),
        (
            f"{USER}/user@1000.service/app.slice/gnome.service",
            "gnome.service",
            f"{USER}/user@1000.service",
        ),
        ("/system.slice/cron.service", "cron.service", ""),
        ("/system.slice/docker-12ab.scope", "docker-12ab.scope", "/system.slice/docker-12ab.scope"),
        (
            "/machine.slice/systemd-nspawn@x.service/payload/init.scope",
            "init.scope",
            "/machine.slice/systemd-nspawn@x.service",
        ),
        ("/init.scope", "init.scope", ""),
        ("/", "", ""),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""),
        ("/system.slice/session-helper.service", "session-helper.service", ""),
    ],
)
def test_what_ends_as_a_whole(cgroup: str, unit: str, group: str) -> None:
    assert (unit_of(cgroup), whole(cgroup)) == (unit, group)


def test_the_control_group_is_read_on_both_hierarchies() -> None:
    assert cgroup_of("0::/system.slice/a.service\n") == "/system.slice/a.service"
    hybrid = "4:memory:/x\n1:name=systemd:/system.slice/b.service\n0::/\n"
    assert cgroup_of(hybrid) == "/system.slice/b.service"
    assert cgroup_of("0::/a:b.service\n") == "/a:b.service"


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/user.slice/user@1000.service/app.slice/x.scope/y\n", "x.scope"),
        ("1:name=systemd:/system.slice/x.service\n0::/\n", "x.service"),
        ("0::/\n", ""),
    ],
)
def test_the_unit_of_a_process_in_both_hierarchies(
    groups: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(groups))
    assert processes.unit(7) == unit


def test_any_name_can_be_printed() -> None:
    script = r"printf 'a\377\303\244' >/proc/$$/comm; echo; read -r _"
    with subprocess.Popen(["sh", "-c", script], stdin=-1, stdout=-1) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()  # it has its name now
        name = processes.command(process.pid)
        process.stdin.close()
    assert (name, processes.command(process.pid)) == ("a\\xffä", "")
