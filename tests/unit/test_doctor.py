"""What the doctor says of a machine, and that each thing comes with what to do."""

import pytest

from immud.adopt import apparmor
from immud.adopt.facts import AppArmor, Declared, Entry, Kind, Mounted, Observed, RowFacts
from immud.doctor.facts import Advice, Home, Partition, Room, Seen
from immud.doctor.judge import judge
from immud.doctor.mend import FIXES
from immud.early.plan import Row
from immud.enable.check import System, check
from immud.enable.fstab import parse
from immud.errors import ConfigError
from immud.model import Config, Severity

HOME = Row("/home", "var/home")
BOUND = Row("/home", "var/home", kind="bind")
FULL_DIRECTORY = Entry(Kind.DIRECTORY)
SRV = Entry(Kind.LINK, content="var/srv")
LINKED = RowFacts(HOME, path=Entry(Kind.LINK, content="var/home"))


def seen(fact: RowFacts = LINKED, **values: object) -> Seen:
    values.setdefault("new_homes", "/var/home")
    return Seen(adoption=Observed(rows=(fact,)), **values)  # type: ignore[arg-type]


def test_nothing_is_in_the_way_of_a_good_system() -> None:
    assert judge(seen()) == ()


CASES = {
    "mount-unit": (
        seen(RowFacts(HOME, declared=(Declared("/etc/x.mount", "/home/alice"),))),
        Severity.WARNING,
        "Where=/var/home/alice",
    ),
    "separate-partition": (
        seen(RowFacts(HOME, path=FULL_DIRECTORY, mounts=(Mounted("/dev/sda3", "ext4"),))),
        Severity.WARNING,
        "immud adopt /home",
    ),
    "unadopted": (
        seen(RowFacts(HOME, path=FULL_DIRECTORY)),
        Severity.NOTICE,
        "immud adopt /home",
    ),
    "protect-home": (
        seen(protect_home={"x.service": "yes"}),
        Severity.WARNING,
        'kind = "bind"',
    ),
    "home-in-passwd": (
        seen(homes=(Home("alice", 1000, "/home/alice"),)),
        Severity.NOTICE,
        "usermod --home /var/home/alice alice",
    ),
    "new-homes": (
        seen(new_homes="/home"),
        Severity.NOTICE,
        "useradd --defaults --base-dir /var/home",
    ),
    "gpt-home": (
        seen(partitions=(Partition("/dev/sda4", "/dev/sda", 4),)),
        Severity.ERROR,
        "sfdisk --part-attrs /dev/sda 4 GUID:63",
    ),
    "read-only-file-system": (
        seen(rooms=(Room("/", 0.1, 0.1, read_only=True),)),
        Severity.ERROR,
        "journalctl -k",
    ),
    "full-file-system": (
        seen(rooms=(Room("/var", 0.1, 0.99),)),
        Severity.WARNING,
        "du -xh /var",
    ),
    "automounter": (
        seen(automounters={"autofs.service": "its maps"}),
        Severity.WARNING,
        "systemctl cat autofs.service",
    ),
    "kernel-module": (seen(modules=("dm_crypt",)), Severity.ERROR, "modinfo dm_crypt"),
    "no-bytecode": (
        seen(problems=check(Config(), System(uncompiled=("x.py",)))),
        Severity.WARNING,
        "py3compile -p immud",
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_each_thing_says_what_breaks_why_and_what_mends_it(code: str) -> None:
    machine, severity, command = CASES[code]
    (advice,) = judge(machine)
    assert (advice.code, advice.severity) == (code, severity)
    assert advice.what
    assert advice.why
    assert command in "\n".join(advice.mend)
    assert advice.fix in ("", *FIXES)


def test_what_enable_says_in_a_sentence_comes_in_its_parts() -> None:
    wrong, library, fstab = judge(
        seen(
            problems=check(
                Config(),
                System(missing_libraries=("pyudev",), fstab=parse("UUID=1 /usr ext4 rw 0 2")),
                (ConfigError("one; two", file="/f", line=3, key="k"),),
            )
        )
    )
    assert (fstab.what, fstab.why, fstab.mend) == (
        "/etc/fstab:1: /usr is mounted from here as well as by immud",
        "mounting it from both can hang the boot",
        (
            "# make sure that the root file system has a /usr of its own that boots, then remove "
            "the line (the key for another one is usr.source)",
        ),
    )
    assert (library.what, library.why, library.mend) == (
        "the Python library pyudev is missing",
        "the daemon cannot run without it",
        ("apt install python3-pyudev",),
    )
    assert (wrong.what, wrong.why, wrong.mend) == ("/f:3: k: one; two", "", ())


def test_a_bind_disarms_nobody() -> None:
    fact = RowFacts(BOUND, path=FULL_DIRECTORY)
    assert judge(seen(fact, protect_home={"x.service": "yes"}, new_homes="/home")) == ()


def test_new_homes_are_made_where_the_others_are() -> None:
    for home in (FULL_DIRECTORY, Entry(Kind.DIRECTORY, empty=True), Entry()):
        machine = (RowFacts(HOME, path=home), RowFacts(Row("/srv", "var/srv"), path=SRV))
        found = judge(Seen(adoption=Observed(rows=machine), new_homes="/home"))
        assert "new-homes" not in [advice.code for advice in found]


def test_a_unit_behind_a_link_stops_the_boot() -> None:
    asked = (Declared("/etc/x.mount", "/home/alice"),)
    fact = RowFacts(HOME, path=LINKED.path, declared=asked)
    assert [advice.severity for advice in judge(seen(fact))] == [Severity.ERROR]
    where_it_belongs = (Declared("/etc/x.mount", "/var/home"),)
    assert judge(seen(RowFacts(HOME, path=LINKED.path, declared=where_it_belongs))) == ()


@pytest.mark.parametrize(
    ("text", "codes"), [(None, ["apparmor"]), ("old", ["apparmor"]), (apparmor.text([HOME]), [])]
)
def test_apparmor_knows_where_the_links_lead(text: str | None, codes: list[str]) -> None:
    has = AppArmor(installed=True, active=True, text=text)
    found = judge(Seen(adoption=Observed(rows=(LINKED,), apparmor=has), new_homes="/var/home"))
    assert [advice.code for advice in found] == codes


def test_apparmor_may_know_more_than_is_linked_yet() -> None:
    text = apparmor.text([HOME, Row("/tmp", "sysroot/tmp")])
    has = AppArmor(installed=True, active=True, text=text)
    assert judge(Seen(adoption=Observed(rows=(LINKED,), apparmor=has), new_homes="/var/home")) == ()


def test_a_tmp_of_tmp_mount_is_nothing_to_mend() -> None:
    fact = RowFacts(
        Row("/tmp", "sysroot/tmp", mode=0o1777),
        path=FULL_DIRECTORY,
        mounts=(Mounted("tmpfs", "tmpfs"),),
        declared=(Declared("/usr/lib/systemd/system/tmp.mount", "/tmp", "tmpfs"),),
    )
    assert [advice.code for advice in judge(seen(fact, tmp_mount=True))] == ["tmp-mount"]


def test_the_worst_comes_first() -> None:
    machine = seen(homes=(Home("a", 1000, "/home/a"),), modules=("dm_crypt",), new_homes="/home")
    severities = [advice.severity for advice in judge(machine)]
    assert severities == [Severity.ERROR, Severity.NOTICE, Severity.NOTICE]


def test_a_reason_is_not_needed_to_be_shown() -> None:
    from immud.cli.doctor import lines  # noqa: PLC0415
    from immud.cli.render import Style  # noqa: PLC0415

    advice = Advice(Severity.NOTICE, "x", "it is so", "", ("do this",), "bytecode")
    assert list(lines((advice,), Style())) == [
        "notice:  It is so.",
        "             do this",
        "         immud doctor --fix does that.",
    ]
    assert list(lines((), Style())) == ["Nothing is in the way."]
