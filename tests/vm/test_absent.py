"""What people have while their tomb is away, and how it comes back to them."""

import json

from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.fixtures import HOME_UUID
from tests.support.tomb import HOME, KEY, assert_no_residue, configure, state, wait_for
from tests.support.vm import VM

TABLE = f'uuid = "{HOME_UUID}"\n{KEY}absent = "volatile"\n'


def shown(machine: VM) -> str:
    """What /var/home is, and how many mounts there are at it."""
    script = "findmnt -fno FSTYPE -M /var/home; grep -c ' /var/home ' /proc/self/mountinfo"
    return " ".join(machine.run("sh", "-c", script, check=False).stdout.split())


def absent(machine: VM) -> str:
    argv = ("busctl", "get-property", "--json=short", "org.immud1", HOME, "org.immud1.Tomb")
    answer = json.loads(machine.run(*argv, "Absent").stdout)
    assert isinstance(answer["data"], str)
    return answer["data"]


def test_a_home_in_memory_is_worked_in_and_comes_and_goes(vm: VM, home_drive: Drive) -> None:
    assert (absent(vm), shown(vm)) == ("directory", "0"), "alice has files on the disk"
    configure(vm, TABLE)
    vm.wait_until("findmnt -t tmpfs /var/home")
    assert (absent(vm), shown(vm)) == ("volatile", "tmpfs 1")
    vm.shell("su -l alice -c 'pwd; umask 077; echo saved >note'")
    # somebody at work, and a user manager that nobody sits in front of
    vm.shell(
        """
        systemd-run -q --unit=shell --uid=alice --working-directory=/var/home/alice sleep 1000
        loginctl enable-linger alice
        until systemctl is-active -q user@1000; do sleep 0.1; done
        export XDG_RUNTIME_DIR=/run/user/1000
        runuser -u alice -- systemd-run -q --user --unit=lingering sleep 1000
        """
    )
    began = vm.run("systemctl", "show", "-P", "InvocationID", "user@1000").stdout

    vm.plug(home_drive)
    who = "in use by sleep (pid .*shell.service"
    waits = f"immud status | tr -d '\\n' | tr -s ' ' | grep -q '{who}'"
    vm.wait_until(waits)
    assert (state(vm), shown(vm)) == ("checking", "tmpfs 1")
    assert not vm.succeeds("systemctl", "is-active", "user@1000")
    vm.run("systemctl", "kill", "--signal=SIGKILL", "immud")
    vm.wait_until("systemctl show -P NRestarts immud | grep -qx 1 && immud status | grep -q shell")
    vm.run("systemctl", "stop", "shell")
    wait_for(vm, "open")
    assert shown(vm).split()[-1] == "2", "it is mounted over what was there"
    assert vm.run("cat", f"/home/{LETTER}", user="alice").stdout == CONTENT[LETTER]
    vm.wait_until("systemctl is-active user@1000")
    assert vm.run("systemctl", "show", "-P", "InvocationID", "user@1000").stdout != began
    vm.run("loginctl", "disable-linger", "alice")

    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)
    assert shown(vm) == "tmpfs 1"
    assert vm.shell("su -l alice -c 'pwd; cat note'") == "/var/home/alice\nsaved\n"

    vm.shell("systemd-run -q --unit=shell --uid=alice --working-directory=/var/home/alice sleep 99")
    vm.plug(home_drive)
    vm.wait_until(waits)
    configure(vm, TABLE + 'on_return = "over"\n')
    wait_for(vm, "open")
    vm.yank(home_drive)
    vm.plug(home_drive)
    wait_for(vm, "open")
    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert shown(vm) == "tmpfs 1"
    assert vm.succeeds("systemctl", "is-active", "shell"), "it held nothing of the tomb"
    assert_no_residue(vm)

    vm.run("systemctl", "stop", "shell")
    configure(vm, TABLE.replace("volatile", "nologin"))
    vm.wait_until("grep -q 'Plug in' /run/nologin")
    vm.plug(home_drive)
    wait_for(vm, "open")
    vm.wait_until("! test -e /run/nologin")
    vm.yank(home_drive)
    vm.wait_until("grep -q 'Plug in' /run/nologin")
    wait_for(vm, "absent")
