"""Holding what is observed against the plan of the boot."""

from immud.early.facts import Facts
from immud.early.observe import Observed
from immud.early.plan import BootPlan, Row
from immud.model import ManagerState, Problem, Severity
from immud.state import attest, overall
from tests.unit.test_steps import HOME, mounted, observed

DONE = Facts(layout="done")
IN_PLACE = mounted("/!", "/usr!", "/etc", "/var")


def states(*targets: str) -> dict[str, str]:
    layout = attest(DONE, BootPlan(), Observed(mounts=mounted(*targets)))
    return {mount.where: mount.state for mount in layout.mounts}


def codes(facts: Facts, plan: BootPlan, seen: Observed) -> list[str]:
    return [problem.code for problem in attest(facts, plan, seen).problems]


def test_all_in_place_is_no_problem() -> None:
    layout = attest(DONE, BootPlan(), Observed(mounts=IN_PLACE))
    assert layout.problems == ()
    assert {mount.state for mount in layout.mounts} == {"mounted"}
    assert overall(layout.problems, off=False) == ManagerState.RUNNING


def test_each_way_a_mount_can_be_wrong() -> None:
    assert states("/!", "/usr!", "/etc", "/var") == dict.fromkeys(
        ("/", "/usr", "/etc", "/var"), "mounted"
    )
    assert states("/!", "/etc", "/var")["/usr"] == "missing"
    assert states("/!", "/usr", "/etc", "/var")["/usr"] == "writable"
    assert states("/usr!", "/etc", "/var")["/"] == "writable"
    assert states("/!", "/usr!", "/etc!", "/var")["/etc"] == "read-only"


def test_a_file_system_that_takes_no_writes_is_one_problem() -> None:
    device = IN_PLACE[-1].dev
    layout = attest(DONE, BootPlan(), Observed(mounts=IN_PLACE, stopped=frozenset({device})))
    (problem,) = layout.problems
    assert problem.code == "file-system-stopped"
    assert "of /etc and /var takes no writes" in problem.text
    assert [m.where for m in layout.mounts if m.state == "read-only"] == ["/etc", "/var"]
    assert all(mount.read_only for mount in layout.mounts)
    assert attest(DONE, BootPlan(), Observed(mounts=IN_PLACE, stopped=frozenset({"9:9"}))) == (
        attest(DONE, BootPlan(), Observed(mounts=IN_PLACE))
    )


def test_another_source_than_the_configured_one() -> None:
    plan = BootPlan(usr="LABEL=usr")
    (problem,) = attest(DONE, plan, Observed(mounts=IN_PLACE)).problems
    assert problem.code == "mount-elsewhere"
    assert problem.text.endswith("; a reboot restores it")  # verify --fix does not
    assert codes(DONE, plan, Observed(mounts=IN_PLACE, placed=frozenset({"/usr"}))) == []


def test_a_problem_of_phase_1_lasts_as_long_as_what_it_was_about() -> None:
    said = ("error", "root-writable", "/ stays writable: held by x[1]", (("path", "/"),))
    facts = Facts(layout="partial", problems=(said,))
    (problem,) = attest(
        facts, BootPlan(), Observed(mounts=mounted("/usr!", "/etc", "/var"))
    ).problems
    assert problem.text == said[2]
    assert attest(facts, BootPlan(), Observed(mounts=IN_PLACE)).problems == ()
    refused = ("error", "usr-refused", "no", ())
    facts = Facts(layout="partial", problems=(refused,))
    assert codes(facts, BootPlan(), Observed(mounts=IN_PLACE)) == ["usr-refused"]


def test_a_directory_that_is_not_kept_writable_any_more_is_an_error() -> None:
    """Although phase 1 said something about it: that it is not adopted, which is no error."""
    plan = BootPlan(rows=(HOME,))
    said = ("notice", "unadopted", "it stays", (("path", "/home"), ("target", "var/home")))
    facts = Facts(layout="done", problems=(said,))
    found = codes(facts, plan, observed(HOME, "directory", mounts=IN_PLACE))
    assert sorted(found) == ["mount-missing", "unadopted"]


def test_a_link_that_is_gone_is_missing() -> None:
    row = Row("/home", "var/home")
    seen = observed(HOME, "absent", mounts=IN_PLACE)
    layout = attest(DONE, BootPlan(rows=(row,)), seen)
    assert [link.state for link in layout.links] == ["missing"]
    assert [problem.code for problem in layout.problems] == ["link-missing"]


def test_no_plan_is_no_layout() -> None:
    layout = attest(Facts(), None, Observed())
    assert (layout.mounts, layout.links, layout.problems) == ((), (), ())


def test_only_errors_degrade() -> None:
    notice = Problem(Severity.WARNING, "x", "y")
    error = Problem(Severity.ERROR, "x", "y")
    assert overall((notice,), off=False) == ManagerState.RUNNING
    assert overall((notice, error), off=False) == ManagerState.DEGRADED
    assert overall((error,), off=True) == ManagerState.OFF
    assert overall((), off=True, stopping=True) == ManagerState.STOPPING
