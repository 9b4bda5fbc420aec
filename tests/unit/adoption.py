"""A model of a file system, for the planner of adoption: names, and what they stand for.

Each step has the preconditions of its system call, so that a plan that the
kernel would refuse fails here as well.
"""

from dataclasses import dataclass, field

from immud.adopt import steps
from immud.adopt.facts import AppArmor, Entry, Kind, Mounted, Observed, RowFacts, beside
from immud.early.plan import Row

ALWAYS = ("/", "/usr", "/var", "/run", "/sysroot")
DIRECTORY, LINK, FILE, FIFO = "directory", "link", "file", "fifo"


@dataclass
class Model:
    """Paths and their nodes: (kind, content), a directory's children by their own paths."""

    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def copy(self) -> "Model":
        return Model(dict(self.nodes), dict(self.mounts), dict(self.files))

    def entry(self, path: str) -> Entry:
        kind, content = self.nodes.get(path, ("", ""))
        if kind == DIRECTORY:
            return Entry(Kind.DIRECTORY, empty=not self.below(path))
        if kind == LINK:
            return Entry(Kind.LINK, content=content)
        return Entry(Kind.OTHER, what=f"a {kind}") if kind else Entry()

    def below(self, path: str) -> list[str]:
        return [name for name in self.nodes if name.startswith(f"{path}/")]

    def data(self) -> set[str]:
        """What people put there: the contents of all files."""
        return {content for kind, content in self.nodes.values() if kind == FILE}

    def observed(self, rows: tuple[Row, ...]) -> Observed:
        armor = AppArmor(installed=True, active=True, text=self.files.get("apparmor"))
        return Observed(tuple(self.facts(row) for row in rows), apparmor=armor)

    def facts(self, row: Row) -> RowFacts:
        path, directory = self.entry(row.path), self.entry(row.directory)
        inner = path.is_directory and not (path.empty and directory.is_directory)
        holder = row.path if inner else row.directory
        mounted = self.mounts.get(row.path)
        return RowFacts(
            row=row,
            path=path,
            directory=directory,
            beside=self.entry(beside(row.path)),
            missing=tuple(name for name in row.inside if f"{holder}/{name}" not in self.nodes),
            mounts=(Mounted("/dev/sda1", "ext4", own=True, of=mounted),) if mounted else (),
        )

    def run(self, todo: tuple[steps.Step, ...]) -> "Model":
        done = self.copy()
        for step in todo:
            done.perform(step)
        return done

    def perform(self, step: steps.Step) -> None:
        match step:
            case steps.MakeDirectory(path=path):
                self._make(path, (DIRECTORY, ""))
            case steps.MakeLink(path=path, content=content):
                self._make(path, (LINK, content))
            case steps.RemoveEmpty(path=path):
                assert self.entry(path).empty, f"rmdir {path}: {self.entry(path)}"
                del self.nodes[path]
            case steps.RemoveLink(path=path, content=content):
                assert self.nodes[path] == (LINK, content)
                del self.nodes[path]
            case steps.Exchange(path=path, other=other):
                assert path in self.nodes
                assert other in self.nodes
                assert path not in self.mounts, "EBUSY"
                assert other not in self.mounts, "EBUSY"
                self.nodes = {_swapped(name, path, other): n for name, n in self.nodes.items()}
            case steps.Sync(paths=paths):
                assert all(path in ALWAYS or path in self.nodes for path in paths)
            case steps.Detach(path=path, what=what):
                assert self.mounts.pop(path) == what
            case steps.Attach(path=path, what=what):
                assert self.nodes[path][0] == self.nodes[what][0] == DIRECTORY
                self.mounts[path] = what
            case steps.WriteFile(text=text):
                self.files["apparmor"] = text
            case steps.RemoveFile():
                self.files.pop("apparmor", None)
            case steps.ReloadProfiles():
                pass

    def _make(self, path: str, node: tuple[str, str]) -> None:
        assert path not in self.nodes, f"EEXIST {path}"
        self.nodes[path] = node


def _swapped(name: str, one: str, other: str) -> str:
    for old, new in ((one, other), (other, one)):
        if name == old or name.startswith(f"{old}/"):
            return new + name[len(old) :]
    return name
