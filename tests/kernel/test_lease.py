"""The end of what runs in a lease's mount namespace when the lease is over."""

import os
from pathlib import Path

from immud import processes
from immud.early import kernel
from immud.lease import leftover, record
from immud.lease import namespace as trial
from tests.kernel.test_tripwire_elsewhere import WRITABLE, process
from tests.support.namespaces import forked, in_namespace


def namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@in_namespace
def test_what_is_in_the_namespace_is_killed_and_nothing_else() -> None:
    kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)
    with process() as other, process("/", WRITABLE) as pid:
        assert leftover.kill(namespace(pid), "x") == [processes.command(other)]
        assert (has_ended(pid), has_ended(other)) == (True, False)


@in_namespace
def test_a_namespace_that_got_the_number_of_the_lease_s_is_left_alone() -> None:
    kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)
    with process() as service:
        assert leftover.kill(namespace(service), "x") == []
        assert not has_ended(service)


@in_namespace
def test_the_lease_that_got_the_number_of_the_last_one_s_is_left_alone() -> None:
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)
    with process("/", WRITABLE) as pid:
        for id in ("ended", "begun"):
            record.write(record.Record(id, mnt_ns=namespace(pid)))
        assert leftover.kill(namespace(pid), "ended") == []
        assert not has_ended(pid)
        record.remove("ended")
        assert leftover.kill(namespace(pid), "begun") != []
        assert has_ended(pid)


@in_namespace
def test_what_a_trial_writes_is_in_a_file_system_of_its_own() -> None:
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    record.write(record.Record("trial"))
    before = os.statvfs("/run").f_bfree

    def work() -> int:
        trial.leave()
        trial._overlay(f"{record.DIRECTORY}/trial")
        for path in trial.TRIED:
            Path(path, "much").write_bytes(bytes(1 << 20))
        return os.statvfs(record.DIRECTORY).f_bfree

    assert forked(work) == before
    record.remove("trial")
    assert os.listdir(record.DIRECTORY) == []
    assert os.statvfs("/run").f_bfree >= before
    assert not any(os.path.exists(f"{path}/much") for path in trial.TRIED)
