"""What `busctl` shows of immud, and what it can do with it."""

import asyncio

from immud.bus.link import Link
from immud.model import TombState
from tests.bus.memory import MemoryService
from tests.bus.private import PrivateBus

ROOT = "/org/immud1"
MANAGER = ("org.immud1", ROOT, "org.immud1.Manager")
HOME = ("org.immud1", f"{ROOT}/tomb/home", "org.immud1.Tomb")


async def test_tree(bus: PrivateBus, link: Link) -> None:
    text = await bus.busctl("tree", "--list", "org.immud1")
    assert text.split() == [
        "/",
        "/org",
        "/org/freedesktop",
        "/org/freedesktop/LogControl1",
        "/org/immud1",
        "/org/immud1/mount",
        "/org/immud1/mount/_2d",
        "/org/immud1/mount/etc",
        "/org/immud1/mount/usr",
        "/org/immud1/mount/var",
        "/org/immud1/tomb",
        "/org/immud1/tomb/home",
    ]


async def test_introspect_shows_values_types_and_flags(bus: PrivateBus, link: Link) -> None:
    text = await bus.busctl("introspect", *MANAGER)
    rows = {fields[0]: fields[1:] for line in text.splitlines() if (fields := line.split())}
    assert rows[".GetTomb"][:3] == ["method", "s", "o"]
    assert rows[".WaitForJob"][:3] == ["method", "ot", "s"]
    assert rows[".Reconcile"][:3] == ["method", "a{sv}", "o"]
    assert rows[".JobRemoved"][:2] == ["signal", "uos"]
    assert rows[".Version"][-1] == "const"
    assert rows[".State"] == ["property", "s", '"running"', "emits-change"]
    assert rows[".HomeTomb"][2] == '"/"'
    text = await bus.busctl("introspect", "org.immud1", "/org/freedesktop/LogControl1")
    assert ".LogLevel" in text
    assert "writable" in text


async def test_every_declared_signature_holds(bus: PrivateBus, link: Link) -> None:
    """Introspection and the values agree, for every property of every object."""
    for path in (await bus.busctl("tree", "--list", "org.immud1")).split():
        await bus.busctl("introspect", "org.immud1", path)
    objects = (
        await bus.json(
            "call", "org.immud1", ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
        )
    )[0]
    assert set(objects) == {
        f"{ROOT}/mount/_2d",
        f"{ROOT}/mount/etc",
        f"{ROOT}/mount/usr",
        f"{ROOT}/mount/var",
        f"{ROOT}/tomb/home",
    }
    assert set(objects[f"{ROOT}/mount/usr"]["org.immud1.Mount"]) == {
        "Where",
        "What",
        "FsType",
        "Options",
        "ReadOnly",
        "State",
        "Unit",
        "LastError",
    }
    assert set(objects[f"{ROOT}/tomb/home"]["org.immud1.Tomb"]) == {
        "Name",
        "UUID",
        "Label",
        "Device",
        "Mapper",
        "State",
        "MountPoint",
        "AutoOpen",
        "FsType",
        "ReadOnly",
        "LastError",
        "Absent",
    }


async def test_properties(bus: PrivateBus, link: Link) -> None:
    assert await bus.json("get-property", *MANAGER, "State") == "running"
    assert await bus.json("get-property", *MANAGER, "UsrReadOnly") is True
    assert await bus.json("get-property", *MANAGER, "Problems") == [
        ["notice", "unadopted", "/opt is a directory.", {"path": {"type": "s", "data": "/opt"}}]
    ]
    assert (await bus.busctl("get-property", *MANAGER, "Boot")).startswith("a{sv} 4 ")
    assert await bus.json("get-property", *MANAGER, "Timestamps") == {"ready": 1500000}
    assert await bus.json("get-property", *HOME, "State") == "present"


async def test_lists(bus: PrivateBus, link: Link) -> None:
    assert (await bus.json("call", *MANAGER, "ListLinks"))[0] == [
        ["/home", "var/home", "adopted", "link"]
    ]
    mounts = (await bus.json("call", *MANAGER, "ListMounts"))[0]
    assert ["/usr", "/dev/vda1", "mounted", f"{ROOT}/mount/usr"] in mounts
    assert (await bus.json("call", *MANAGER, "ListTombs"))[0] == [
        ["home", "present", "/var/home", f"{ROOT}/tomb/home"]
    ]
    assert await bus.json("call", *MANAGER, "GetTomb", "s", "home") == [f"{ROOT}/tomb/home"]
    text = await bus.busctl("call", *MANAGER, "GetTomb", "s", "work", status=1)
    assert "No tomb 'work' is configured; configured: home." in text


async def test_open_and_wait(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    home = service.now_tombs["home"]
    home.gate.clear()
    (job,) = await bus.json("call", *HOME, "Open", "a{sv}", "0")
    assert job == f"{ROOT}/job/1"
    fields = (
        await bus.json(
            "call",
            "org.immud1",
            job,
            "org.freedesktop.DBus.Properties",
            "GetAll",
            "s",
            "org.immud1.Job",
        )
    )[0]
    assert {name: value["data"] for name, value in fields.items()} == {
        "Id": 1,
        "Operation": "open",
        "Object": f"{ROOT}/tomb/home",
        "State": "running",
        "Progress": 0.5,
        "StartedByUID": 0,
        "Result": "",
    }
    assert await bus.json("get-property", *MANAGER, "NJobs") == 1
    waiting = asyncio.ensure_future(bus.json("call", *MANAGER, "WaitForJob", "ot", job, "0"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    home.gate.set()
    assert await waiting == ["done"]
    # The job has left, and who asks late is answered all the same.
    assert await bus.json("call", *MANAGER, "WaitForJob", "ot", job, "0") == ["done"]
    assert job not in await bus.busctl("tree", "--list", "org.immud1")
    assert await bus.json("get-property", *MANAGER, "HomeTomb") == f"{ROOT}/tomb/home"
    text = await bus.busctl("call", *HOME, "Open", "a{sv}", "0", status=1)
    assert "The tomb home is open." in text


async def test_a_failed_job_says_why(bus: PrivateBus, link: Link) -> None:
    (job,) = await bus.json("call", *HOME, "Close", "a{sv}", "0")
    text = await bus.busctl("call", *MANAGER, "WaitForJob", "ot", job, "0", status=1)
    assert "bash (pid 12) is in the way" in text
    (job,) = await bus.json("call", *HOME, "Close", "a{sv}", "1", "force", "b", "true")
    assert await bus.json("call", *MANAGER, "WaitForJob", "ot", job, "0") == ["done"]


async def test_waiting_has_a_limit(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    service.now_tombs["home"].gate.clear()
    (job,) = await bus.json("call", *HOME, "Open", "a{sv}", "0")
    text = await bus.busctl("call", *MANAGER, "WaitForJob", "ot", job, "1000", status=1)
    assert "still running" in text
    assert service.now_tombs["home"].view.state == TombState.UNLOCKING


async def test_cancel(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    service.now_tombs["home"].gate.clear()
    (job,) = await bus.json("call", *HOME, "Open", "a{sv}", "0")
    await bus.busctl("call", "org.immud1", job, "org.immud1.Job", "Cancel")
    text = await bus.busctl("call", *MANAGER, "WaitForJob", "ot", job, "0", status=1)
    assert "open was cancelled" in text
    assert service.now_tombs["home"].view.state == TombState.PRESENT
    text = await bus.busctl("call", *MANAGER, "WaitForJob", "ot", f"{ROOT}/job/99", "0", status=1)
    assert "There is no job" in text


async def test_options_are_checked(bus: PrivateBus, link: Link) -> None:
    text = await bus.busctl("call", *HOME, "Close", "a{sv}", "1", "forec", "b", "true", status=1)
    assert "There is no option 'forec'; there are: force (b)." in text
    text = await bus.busctl("call", *HOME, "Close", "a{sv}", "1", "force", "s", "yes", status=1)
    assert "The option force is of type b, not s." in text


async def test_log_control(bus: PrivateBus, link: Link) -> None:
    control = ("org.immud1", "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1")
    assert await bus.json("get-property", *control, "LogLevel") == "info"
    await bus.busctl("set-property", *control, "LogLevel", "s", "debug")
    assert await bus.json("get-property", *control, "LogLevel") == "debug"
    text = await bus.busctl("set-property", *control, "LogLevel", "s", "loud", status=1)
    assert "A log level is one of emerg, alert, crit, err, warning, notice, info, debug." in text
    assert await bus.json("get-property", *control, "SyslogIdentifier") == "immud"
