"""What is to be: the plan of this boot and its facts, and the tombs that are open. Pure."""

from collections.abc import Iterable

from immud.early import steps
from immud.early.facts import Facts
from immud.early.plan import BootPlan
from immud.model import LinkFact
from immud.tripwire.rule import PLACES, Expected, Tomb, Tree


def expect(
    plan: BootPlan,
    facts: Facts,
    links: Iterable[LinkFact] = (),
    tombs: Iterable[Tomb] = (),
    allow: Iterable[str] = (),
) -> Expected:
    """Everything the rule holds against what is seen; `links` are the rows as they are now."""
    trees = _trees(plan, facts, tuple(links))
    adopted = {path for path, _, state, kind in facts.links if (state, kind) == ("adopted", "link")}
    rows = [path for row in plan.rows for path in (row.path, row.directory)]
    return Expected(
        trees=trees,
        links=tuple(row for row in plan.rows if row.path in adopted),
        tombs=tuple(tombs),
        places=tuple(dict.fromkeys((*PLACES, *rows, *allow))),
        open=_open(trees, rows),
    )


def _trees(plan: BootPlan, facts: Facts, links: tuple[LinkFact, ...]) -> tuple[Tree, ...]:
    """The mounts of the layout: those of this boot, and those a row has needed since.

    One of a row that was adopted meanwhile is gone, and a link is there.
    """
    now = tuple((link.path, link.target, link.state, link.kind) for link in links)
    wanted = {path: how for path, how, _ in steps.expected(plan, now)}
    adopted = {link.path for link in links if link.state == "adopted"}
    boot = {path: how for path, _, how, _ in facts.mounts if path not in adopted}
    shown = {path: (dev, root, how) for path, dev, root, how in facts.trees}
    return tuple(
        Tree(path, how == "ro", *shown.get(path, ())) for path, how in {**boot, **wanted}.items()
    )


def _open(trees: tuple[Tree, ...], rows: list[str]) -> tuple[tuple[str, str], ...]:
    """The parts of protected file systems that are writable by design, wherever they are seen."""
    found = [(tree.dev, tree.root) for tree in trees if tree.dev and not tree.read_only]
    for tree in trees:
        if tree.dev and tree.read_only:
            below = tree.path.rstrip("/") + "/"
            found += [
                (tree.dev, f"{tree.root.rstrip('/')}/{path.removeprefix(below)}")
                for path in ("/etc", "/var", "/sysroot/tmp", *rows)
                if path.startswith(below)
            ]
    return tuple(dict.fromkeys(found))
