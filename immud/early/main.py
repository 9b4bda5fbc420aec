"""Phase 1: from unit start to READY=1, then phase 2 in the same process.

Run by `/usr/lib/immud/daemon`, also as `daemon serve` (phase 2), `daemon probe`
(inside another /usr, before it is trusted), `daemon pid1` (what PID 1 is told then, see
immud.early.pid1), `daemon reconcile` (the missing steps again, asked for over D-Bus),
`daemon compile` (the package's postinst) and `daemon lease-...` (see immud.lease).

Whatever happens here, READY=1 is sent and the machine goes on booting.
"""

import os
import sys

from immud.early import attempts, execute, facts, inputs, logins, mountinfo, notify, plan, steps
from immud.early.observe import observe
from immud.early.process import command, is_legacy, now

# The plan, where it came from, what is to be said about that, and the plan that the next boot
# is to find where it finds another one now.
Chosen = tuple[plan.BootPlan, str, list[steps.Problem], plan.BootPlan | None]


def main() -> None:
    """Dispatch on the launcher's one argument."""
    mode = sys.argv[1] if len(sys.argv) > 1 else "boot"
    if mode == "boot":
        boot()
    elif mode == "reconcile":
        made = reconcile()
        facts.write(made)
        sys.exit(0 if made.layout == "done" else 1)
    elif mode == "pid1":
        from immud.early import pid1  # noqa: PLC0415

        pid1.main()
    elif mode == "compile":
        from immud.config import compile  # noqa: PLC0415

        compile.main()
    elif mode == "lease-for":
        from immud.lease import wrap  # noqa: PLC0415

        wrap.main()
    elif mode == "lease-end":
        from immud.lease import end  # noqa: PLC0415

        end.main()
    elif mode == "probe":
        from immud.early import sources  # noqa: PLC0415

        sys.exit(sources.check_usr() or 0)
    else:
        import gc  # noqa: PLC0415 - phase 2
        from contextlib import nullcontext  # noqa: PLC0415

        from immud.courtesy import background  # noqa: PLC0415

        gc.enable()  # for a process that stays; see the launcher
        # Where people wait for their homes, this is not the least of what the boot has to do.
        with background() if not logins.are_held() else nullcontext():
            from immud.daemon import main as serve  # noqa: PLC0415
        serve()


def boot() -> None:
    """Lay the system out once a boot, say READY=1 and become phase 2."""
    made, due = facts.read(), None
    if made is None:
        started = now()
        try:
            words = command_line()
            made = facts.Facts() if "immud=off" in words else attempt(words)
        except Exception as error:
            text = f"the layout was left out: {type(error).__name__}: {error}"
            made = facts.Facts(layout="partial", problems=(("error", "phase1-failed", text, ()),))
            sys.excepthook(*sys.exc_info())
        made.times = (("Phase1Start", started), *made.times, ("Phase1Done", now()))
        try:
            facts.write(made)
        except OSError as error:
            announce((("error", "facts-unwritable", f"/run/immud: {error}", ()),))
        announce(made.problems)
        due = made.due
    notify.ready(f"Layout {made.layout}; taking over")
    if due:
        _replace(due)
    os.execv(command()[0], command("serve"))


def command_line() -> frozenset[str]:
    """The words of the kernel's command line; in a container, of its init's."""
    init = "/proc/1/cmdline" if os.path.exists("/run/systemd/container") else "/proc/cmdline"
    with open(init, encoding="utf-8", errors="replace") as file:
        return frozenset(file.read().replace("\0", " ").split())


def attempt(words: frozenset[str]) -> facts.Facts:
    """Lay the system out, unless it was enabled since it booted, or boots before failed at that."""
    if os.path.exists(facts.LATER):
        text = "this boot began without immud, which begins with the next one"
        return facts.Facts(problems=(("notice", "enabled-later", text, ()),))
    try:
        failed = attempts.begin(words)
    except OSError as error:
        text = (
            f"{attempts.PATH} cannot be written ({error.strerror}), and nobody would notice "
            "if boots failed; so only /usr is protected"
        )
        only_usr = plan.BootPlan(root=False)
        _leave_sources()
        return lay_out((only_usr, "usr-only", [("error", "attempts-unwritable", text, ())], None))
    if failed < attempts.LIMIT:
        return lay_out()
    text = (
        f"the last {failed} boots did not come to their end, so this one leaves everything as it "
        "is on the disk; the next one tries again (look for the reason with: journalctl -b -1)"
    )
    said = ("error", "boots-failed", text, (("count", str(failed)),))
    _leave_sources()
    return facts.Facts(layout="skipped", problems=(said,))


def reconcile() -> facts.Facts:
    """Perform what is missing of the layout of this boot, in a system that runs.

    By the plan it was laid out by, whatever the configuration says meanwhile. Where
    /usr, /etc and /var come from is decided at boot alone: programs use them now.
    """
    made, wanted = facts.read(), facts.kept_plan()
    if made is None or wanted is None:
        return facts.Facts(layout="off")
    found = steps.resolve(wanted, observe(wanted))
    todo = tuple(
        step
        for step in found.steps
        if step.op != "swap"
        and not (step.target in ("/usr", "/etc", "/var") and step.source != step.target)
    )
    trees = execute.Trees(legacy=is_legacy())
    # Their directories were made read-only, and stay so for everybody else.
    links = tuple(s for s in todo if s.op in ("link", "relink") and _is_in_read_only(s.target))
    failed = execute.perform(tuple(step for step in todo if step not in links), trees)
    if links:
        from contextlib import suppress  # noqa: PLC0415 - only where one is gone

        from immud.lease import namespace, wire  # noqa: PLC0415 - as above
        from immud.private_mounts import private_mounts  # noqa: PLC0415 - as above

        with private_mounts():
            # Where it cannot be had, each step says itself that it met something read-only.
            with suppress(OSError, wire.Failed):
                namespace.loosen("", trees.legacy)
            failed += execute.perform(links, trees)
    kept = [problem for problem in made.problems if problem[1] in facts.LASTING]
    problems = (*kept, *failed, *found.problems)
    # What a link of ours was made into is left alone, and is not what this boot left either.
    was = {link[0]: link for link in made.links if link[2:] == ("adopted", "link")}
    return facts.Facts(
        layout="partial" if any(p[0] == "error" for p in problems) else "done",
        plan=made.plan,
        mounts=ours(wanted, found.links, mountinfo.read()),
        links=tuple(was.get(x[0], x) if x[2] == "foreign" else x for x in found.links),
        problems=problems,
        times=made.times,
        trees=made.trees,
    )


def _is_in_read_only(path: str) -> bool:
    return bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)


def lay_out(chosen: Chosen | None = None) -> facts.Facts:
    """Perform what is missing of the plan."""
    wanted, origin, problems, due = chosen or load()
    problems += _keep(wanted)  # before PID 1 may be told to run the generator again
    problems += _hold_logins(wanted)
    trees = execute.Trees(legacy=is_legacy())
    found = steps.resolve(wanted, observe(wanted))
    todo = found.steps
    moves = any(step.op == "attach" and step.source != step.target for step in todo)
    if moves or os.path.exists(facts.MOVED):
        from immud.early import elsewhere  # noqa: PLC0415 - only where a source is elsewhere

        todo, refused, then = elsewhere.settle(todo, trees)
    else:
        refused, then = [], None
    failed = execute.perform(todo, trees)
    missed = {
        dict(data)["path"]
        for _, code, _, data in (*refused, *failed)
        if code in ("source-missing", "mount-failed")
    }
    problems += _vouch(wanted, origin, missed)  # before PID 1 may be told to start what waits
    if then:
        failed += then()
    problems += [*refused, *failed, *found.problems]
    problems += _follow_links(wanted, found.links)
    entries = mountinfo.read()
    return facts.Facts(
        layout="partial" if any(p[0] == "error" for p in problems) else "done",
        plan=origin,
        mounts=ours(wanted, found.links, entries),
        links=found.links,
        problems=tuple(problems),
        trees=trees_of(wanted, found.links, entries),
        due=due,
    )


def _replace(due: plan.BootPlan) -> None:
    """Have the next boot find `due`, from its generator on.

    Last, when nobody waits any more: what is cut off before is for the next boot to do.
    """
    from immud.config.compile import write_plan  # noqa: PLC0415 - which has compiled it

    try:
        write_plan(due)
    except OSError as error:
        text = (
            f"{plan.PATH} could not be replaced ({error}), so the next boot is laid out as this "
            "one; run 'immud enable' when it can be"
        )
        announce((("warning", "plan-unwritable", text, ()),))


def _vouch(wanted: plan.BootPlan, origin: str, missed: set[str]) -> list[steps.Problem]:
    """Say that /etc and /var are the configured ones, unless one of them is `missed`.

    Also where none comes from elsewhere, and where a run that was cut off has mounted them: what
    is held back waits for this.
    """
    elsewhere = {p for p, source in (("/etc", wanted.etc), ("/var", wanted.var)) if source != p}
    if origin == "usr-only" or elsewhere & missed:  # or nobody knows what is configured
        return []
    try:
        facts.note(facts.SOURCES_OK)
    except OSError as error:
        text = f"{facts.SOURCES_OK}: {error}; what boot.hold_back names does not start"
        return [("error", "facts-unwritable", text, ())]
    return []


def _leave_sources() -> None:
    """Hold nothing back in a boot with the disk's own /etc and /var, where these are meant."""
    wanted, origin, _, _ = load()
    _vouch(wanted, origin, {"/etc", "/var"})


def _keep(wanted: plan.BootPlan) -> list[steps.Problem]:
    try:
        facts.keep_plan(wanted)
    except OSError as error:
        # The layout is worth more than the note about it.
        text = f"{facts.PLAN} could not be written, so the layout cannot be watched: {error}"
        return [("error", "facts-unwritable", text, ())]
    return []


def _hold_logins(wanted: plan.BootPlan) -> list[steps.Problem]:
    try:
        if wanted.logins:
            logins.hold()
    except OSError as error:
        return [("warning", "logins-early", f"Logins do not wait for homes: {error}", ())]
    return []


def _follow_links(wanted: plan.BootPlan, links: tuple[steps.Link, ...]) -> list[steps.Problem]:
    """Tell systemd-tmpfiles, which runs next, what is behind the links."""
    adopted = {path for path, _, state, kind in links if (state, kind) == ("adopted", "link")}
    moved = tuple((row.path, row.directory) for row in wanted.rows if row.path in adopted)
    if not moved:
        return []
    from immud.early import tmpfiles  # noqa: PLC0415 - there are no links yet without it

    try:
        tmpfiles.write(moved)
    except OSError as error:
        text = f"systemd-tmpfiles may warn about the links: {error}"
        return [("notice", "tmpfiles", text, ())]
    return []


# What the generator has told systemd by the compiled plan: to wait for a device or a mount, and
# to hold units back. Another source would be missed, and what is not held write to the wrong /var.
_PREPARED = (
    *(("usr.source", "usr"), ("etc.source", "etc"), ("var.source", "var")),
    ("boot.hold_back", "hold"),
)


def load() -> Chosen:
    """The plan to use."""
    try:
        with open(plan.PATH, "rb") as file:
            compiled = plan.decode(file.read())
    except (OSError, ValueError) as error:
        compiled = None
        broken = f"{plan.PATH}: {error}"
    if compiled and compiled.configs == inputs.contents():
        return compiled, "compiled", [], None
    try:
        from immud.config.compile import compile_now  # noqa: PLC0415 - the configuration has changed

        fresh = compile_now()
    except Exception as error:
        said: tuple[tuple[str, str], ...] = (("error", str(error)),)
        if compiled:
            text = f"{error}; the layout is the one of the last 'immud enable'"
            return compiled, "last-good", [("error", "config-invalid", text, said)], None
        text = f"{error}; there is no usable plan either ({broken}), so only /usr is protected"
        return (
            plan.BootPlan(root=False), "usr-only", [("error", "config-invalid", text, said)], None
        )  # fmt: skip
    if not compiled:
        text = f"{broken}; compiled from the configuration instead"
        return fresh, "fresh", [("warning", "plan-missing", text, ())], fresh
    changed = [key for key, name in _PREPARED if getattr(fresh, name) != getattr(compiled, name)]
    if not changed:
        return fresh, "fresh", [], fresh
    text = (
        f"{' and '.join(changed)} changed without 'immud enable', which prepares systemd for that; "
        "the layout is the one of before until you run it"
    )
    return compiled, "last-good", [("error", "plan-outdated", text, ())], None


def ours(
    wanted: plan.BootPlan,
    links: tuple[steps.Link, ...],
    entries: tuple[mountinfo.MountEntry, ...],
) -> tuple[tuple[str, int, str, str], ...]:
    """The mounts immud answers for, as the kernel shows them now."""
    found = []
    for path, how, source in steps.expected(wanted, links):
        if entry := mountinfo.top(entries, path):
            found.append((path, entry.id, how, source))
    return tuple(found)


def trees_of(
    wanted: plan.BootPlan,
    links: tuple[steps.Link, ...],
    entries: tuple[mountinfo.MountEntry, ...],
) -> tuple[tuple[str, str, str, str], ...]:
    """What these mounts show now that nobody else has run: the tripwire's yardstick."""
    found = []
    for path, _, _ in steps.expected(wanted, links):
        if entry := mountinfo.top(entries, path):
            how = "ro" if "ro" in entry.super_options.split(",") else "rw"
            found.append((path, entry.dev, entry.root, how))
    return tuple(found)


def announce(problems: tuple[steps.Problem, ...]) -> None:
    """Say problems in the journal (stderr is connected to it), and errors on the console."""
    level = {"error": 3, "warning": 4, "notice": 5}
    for severity, code, text, _ in problems:
        sys.stderr.write(f"<{level[severity]}>{text} [{code}]\n")
        if severity == "error":
            try:
                fd = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
                os.write(fd, f"immud: {text}\r\n".encode(errors="backslashreplace"))
                os.close(fd)
            except OSError:
                pass  # no console: the journal and the bus have it
