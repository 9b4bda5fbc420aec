"""Hooks, targets, binds and sleep, with one tomb inside another, in a real machine."""

from collections.abc import Callable

from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.fixtures import HOME_UUID
from tests.support.tomb import KEY, assert_no_residue, configure, put, wait_for
from tests.support.vm import VM

HOOK = """#!/bin/sh
echo "said: $IMMUD_EVENT"
[ "$IMMUD_EVENT" != opened ] || ls "$IMMUD_MOUNT_POINT" >/run/seen-by-hook
echo "$IMMUD_EVENT $IMMUD_TOMB" >>/run/hooks
"""
# What there is when everybody who was to be asked has been, and the sleep begins.
NIGHT = """[Service]
ExecStartPre=/bin/sh -c "ls /dev/mapper >/run/night"
"""
OWN = {"diary": "mine alone\n", "papers/deed": "signed\n"}


def told(vm: VM) -> list[str]:
    """What the hooks were told since this was last asked."""
    return vm.shell("cat /run/hooks 2>/dev/null; rm -f /run/hooks").splitlines()


def wait_for_own(vm: VM, state: str) -> None:
    get = "busctl get-property org.immud1 /org/immud1/tomb/own org.immud1.Tomb State"
    vm.wait_until(f"{get} | grep -q '\"{state}\"'", 60)


def assert_both_open(vm: VM) -> None:
    wait_for(vm, "open")
    wait_for_own(vm, "open")
    vm.wait_until("grep -q 'mine alone' /home/alice/diary && grep -q signed /var/lib/papers/deed")
    assert vm.run("findmnt", "-nro", "TARGET", "/var/home").stdout == "/var/home\n"


def test_what_goes_along_with_two_tombs(
    vm: VM, home_drive: Drive, drives: Callable[..., Drive]
) -> None:
    own = drives(label="own", content=OWN)
    for event in ("opened", "closing", "closed", "lost"):
        put(vm, f"/etc/immud/hooks.d/{event}/10-note", HOOK)
    vm.run("systemctl", "edit", "--runtime", "--stdin", "systemd-suspend", input=NIGHT)
    # Five seconds are not many for a machine as slow as this one.
    put(vm, "/run/systemd/logind.conf.d/slow.conf", "[Login]\nInhibitDelayMaxSec=60\n")
    vm.run("systemctl", "restart", "systemd-logind")
    configure(
        vm,
        f'uuid = "{HOME_UUID}"\non_suspend = "close"\n{KEY}'
        f'[tomb.own]\nlabel = "own"\nmount = "/var/home/alice"\n{KEY}'
        'binds = { papers = "/var/lib/papers" }\n',
    )

    # The inner one first: the outer one does not hide it.
    vm.plug(own)
    wait_for_own(vm, "open")
    vm.wait_until("systemctl is-active immud-tomb@own.target")
    assert told(vm) == ["opened own"]
    assert vm.run("cat", "/run/seen-by-hook").stdout.split() == ["diary", "lost+found", "papers"]
    assert "said: opened" in vm.messages("-u", "immud-hook-own-opened-*")
    assert not vm.succeeds("systemctl", "is-active", "immud-tomb.target")
    vm.plug(home_drive)
    assert_both_open(vm)
    vm.wait_until("systemctl is-active immud-tomb.target immud-tomb@home.target")
    vm.wait_until("systemctl is-active immud-tomb@own.target")
    assert sorted(told(vm)) == ["lost own", "opened home", "opened own"]

    # Pulled out, the outer one does not take it along.
    vm.yank(home_drive)
    wait_for(vm, "absent")
    wait_for_own(vm, "open")
    assert vm.run("cat", "/home/alice/diary").stdout == OWN["diary"]
    vm.wait_until("grep -q 'lost home' /run/hooks && grep -q 'opened own' /run/hooks")
    assert not vm.succeeds("systemctl", "is-active", "immud-tomb.target", "immud-tomb@home.target")
    vm.plug(home_drive)
    assert_both_open(vm)
    vm.wait_until("grep -q 'opened home' /run/hooks && systemctl is-active immud-tomb@own.target")

    # The night.
    told(vm)
    vm.wait_until("systemd-inhibit --list --no-legend | grep -q immud")
    vm.run("systemd-run", "--quiet", "--unit=sitter", "--property=WorkingDirectory=/var/home",
           "sleep", "1000")  # fmt: skip
    vm.start("systemctl", "suspend")
    vm.sleep_and_wake()
    assert_both_open(vm)
    assert vm.run("cat", "/run/night").stdout == "control\n", "it slept with a tomb open"
    vm.wait_until("grep -q 'opened own' /run/hooks && grep -q 'opened home' /run/hooks")
    assert set(told(vm)) - {"lost own"} == {
        *("closed home", "closed own", "closing home", "closing own"),
        *("opened home", "opened own"),
    }
    assert any("Ended sleep" in line and "sitter.service" in line for line in vm.messages())

    # Somebody says no, and then is not asked.
    put(vm, "/etc/immud/hooks.d/closing/20-no", "#!/bin/sh\nexit 1\n")
    refused = vm.run("immud", "close", "home", check=False)
    assert refused.status == 1
    assert "hooks.d/closing/20-no failed" in refused.stderr
    assert_both_open(vm)
    vm.run("immud", "close", "--force", "home")
    assert_no_residue(vm)
    assert vm.run("cat", f"/home/{LETTER}", check=False).stdout != CONTENT[LETTER]
    assert not vm.succeeds("test", "-e", "/var/lib/papers"), "it was made for the bind, and empty"
    vm.wait_until("grep -q 'closed home' /run/hooks && grep -q 'closed own' /run/hooks")
