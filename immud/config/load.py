"""The configuration: files read, merged key by key, checked, and turned into a `Config`.

Vendor defaults come first, then the administrator's file, then the drop-ins in the
order of their names; a key given later wins. Everything is optional. All mistakes
of all files are found in one pass, each with its file, line and key.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from immud.config import claims, contradictions, rules
from immud.config.layout import TABLES
from immud.config.rules import Wrong
from immud.config.toml import BARE, Key, parse
from immud.early.inputs import DROPINS, files
from immud.early.plan import KINDS, Row
from immud.errors import ConfigError
from immud.model import Config, Problem, Severity, TombConfig, Tripwire

Rule = Callable[[Any], Any]
Place = tuple[str, int]

POLICY: Rule = rules.one_of(*rules.POLICIES)

TABLE_KEYS: Mapping[str, Mapping[str, Rule]] = {
    "usr": {"source": rules.source},
    "etc": {"source": rules.source},
    "var": {"source": rules.source},
    "root": {"readonly": rules.boolean},
    "boot": {"wait": rules.seconds, "hold_back": rules.units},
    "log": {"level": rules.one_of(*rules.LOG_LEVELS)},
    "layout": {"table": rules.one_of(*TABLES)},
    "tripwire": {"default": POLICY, "allow": rules.places},
}
TOMB_KEYS: Mapping[str, Rule] = {
    "uuid": rules.uuid,
    "label": rules.word,
    "partuuid": rules.partuuid,
    "serial": rules.word,
    "encrypted": rules.boolean,
    "file": rules.file,
    "key": rules.key,
    "mount": rules.path,
    "options": rules.options,
    "auto_open": rules.boolean,
    "absent": rules.one_of(*rules.ABSENT),
    "absent_size": rules.size,
    "on_return": rules.one_of(*rules.ON_RETURN),
    "binds": rules.binds,
    "bind_hooks": rules.bind_hooks,
    "on_suspend": rules.one_of("keep", "close"),
    "read_only": rules.boolean,
    "map": rules.users,
}
IDENTIFIERS = ("uuid", "label", "partuuid", "serial")


def load(root: str = "/") -> Config:
    """The configuration of the system in `root`. Raises the first ConfigError there is."""
    config, errors = examine(root)
    if errors:
        raise errors[0]
    return config


def tolerate() -> tuple[Config, tuple[Problem, ...]]:
    """The configuration as far as it makes sense, for who has to go on with it."""
    config, errors = examine()
    return config, tuple(
        Problem(
            Severity.ERROR,
            "config-invalid",
            f"{error}; until it is fixed every boot has the layout of the last 'immud enable'",
            {"file": error.file, "line": str(error.line), "key": error.key},
        )
        for error in errors
    )


def examine(
    root: str = "/", also: Mapping[str, bytes] = MappingProxyType({})
) -> tuple[Config, tuple[ConfigError, ...]]:
    """The configuration as far as it makes sense, and everything that is wrong with it.

    `also` are files, by path, that are taken to be there with these contents.
    """
    merge = _Merge()
    contents: list[tuple[str, bytes]] = []
    try:
        for path in dict.fromkeys((*files(root), *also)):
            shown = os.path.join(root, path[1:])
            try:
                contents.append((path, also[path] if path in also else _read(shown)))
                merge.add(shown, *parse(contents[-1][1], shown))
            except OSError as error:
                text = f"cannot be read: {error.strerror}; make it a readable file or remove it"
                merge.errors.append(ConfigError(text, file=shown))
            except ConfigError as error:
                merge.errors.append(error)
    except OSError as error:
        text = f"cannot be listed: {error.strerror}; make it a readable directory"
        merge.errors.append(ConfigError(text, file=os.path.join(root, DROPINS[1:])))
    config = merge.config(tuple(contents))
    order = [os.path.join(root, path[1:]) for path, _ in contents]
    return config, tuple(
        sorted(
            merge.errors,
            key=lambda error: (error.file in order and order.index(error.file), error.line),
        )
    )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def dotted(key: Key) -> str:
    """The key as TOML would spell it."""
    parts = (str(part) for part in key)
    return ".".join(p if BARE.fullmatch(p) else f'"{p}"' for p in parts)


def _suggest(name: str, known: tuple[str, ...]) -> str:
    """What would have been accepted in place of `name`."""
    # Costs 3 ms, and only a mistake needs it.
    from difflib import get_close_matches  # noqa: PLC0415

    close = get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else "known are " + ", ".join(known)


class _Merge:
    """The files merged so far: the checked value of each key, and where it was given."""

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {}
        self.places: dict[Key, Place] = {}
        self.errors: list[ConfigError] = []
        self.rows: dict[str, dict[str, Any] | None] = {}
        self.tombs: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, str] = {}

    # --- one file ---------------------------------------------------------------

    def add(self, file: str, values: Mapping[str, Any], lines: Mapping[Key, int]) -> None:
        """Merge one file over what is there."""
        for key in lines:
            self.places[key] = (file, lines[key])
        for table, content in values.items():
            if table not in (*TABLE_KEYS, "links", "tomb"):
                known = (*TABLE_KEYS, "links", "tomb")
                self.wrong((table,), "unknown table; " + _suggest(table, known))
            elif not isinstance(content, dict):
                kind = rules.kind_of(content)
                self.wrong((table,), f"is {kind}; it has to be a table: write [{table}]")
            elif table == "links":
                for path, row in content.items():
                    self.row(path, row)
            elif table == "tomb":
                for name, tomb in content.items():
                    self.tomb(name, tomb)
            else:
                keys = self.without_policies(content) if table == "tripwire" else content
                self.values.update(
                    ((table, name), value)
                    for name, value in self.checked((table,), keys, TABLE_KEYS[table])
                )

    def checked(
        self, table: Key, content: Mapping[str, Any], known: Mapping[str, Rule]
    ) -> Iterator[tuple[str, Any]]:
        """The pairs of a table that are known and right; the others are errors."""
        for name, value in content.items():
            key = (*table, name)
            if name not in known:
                self.wrong(key, "unknown key; " + _suggest(name, tuple(known)))
                continue
            try:
                yield name, known[name](value)
            except Wrong as error:
                self.wrong(key, str(error))

    def without_policies(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """`[tripwire]` without its table of paths, which is merged path by path."""
        key, paths = ("tripwire", "paths"), content.get("paths", {})
        if not isinstance(paths, dict):
            kind = rules.kind_of(paths)
            self.wrong(key, f"is {kind}; it has to be a table: write [tripwire.paths]")
            paths = {}
        for path, policy in paths.items():
            try:
                self.policies[rules.path(path, 'an absolute path such as "/usr"')] = POLICY(policy)
            except Wrong as error:
                self.wrong((*key, path), str(error))
        return {name: content[name] for name in content if name != "paths"}

    def row(self, path: str, content: Any) -> None:
        """A row as one file has it: a target, `false`, or a table of single keys."""
        key = ("links", path)
        try:
            rules.row_path(path)
        except Wrong as error:
            self.wrong(key, str(error))
            return
        rule: dict[str, Rule] = {
            "target": lambda value: rules.target(path, value),
            "kind": rules.one_of(*KINDS),
            "mode": rules.mode,
        }
        if content is False:
            self.rows[path] = None
        elif isinstance(content, str):
            try:
                self.rows[path] = {"target": rule["target"](content)}
            except Wrong as error:
                self.wrong(key, str(error))
        elif isinstance(content, dict):
            row = self.rows.get(path) or {}
            self.rows[path] = row | dict(self.checked(key, content, rule))
        else:
            kind = "true" if content is True else rules.kind_of(content)
            wanted = "a target, a table of target, kind and mode, or false to drop it"
            self.wrong(key, f"is {kind}; it has to be {wanted}")

    def tomb(self, name: str, content: Any) -> None:
        """A `[tomb.NAME]` table as one file has it."""
        key = ("tomb", name)
        try:
            if not isinstance(content, dict):
                kind = rules.kind_of(content)
                raise Wrong(f"is {kind}; tombs have names: write [tomb.home], and keys below it")
            rules.tomb_name(name)
        except Wrong as error:
            self.wrong(key, str(error))
            return
        self.tombs.setdefault(name, {}).update(self.checked(key, content, TOMB_KEYS))

    def wrong(self, key: Key, text: str) -> None:
        file, line = self.places.get(key, ("", 0))
        self.errors.append(ConfigError(text, file=file, line=line, key=dotted(key)))

    # --- the whole --------------------------------------------------------------

    def config(self, contents: tuple[tuple[str, bytes], ...]) -> Config:
        """Everything merged, its contradictions noted among the errors."""
        rows = self.merged_rows()
        tombs = tuple(TombConfig(name, **keys) for name, keys in self.tombs.items())
        names = ("usr", "etc", "var")
        sources = {name: self.values.get((name, "source"), f"/{name}") for name in names}
        self.require_identifiers(tombs)
        nested, wrongs = claims.nested(tombs)
        for key, text in (
            *contradictions.of_rows(rows, self.rows),
            *contradictions.of_tombs(tombs, rows, self.places),
            *contradictions.of_sources(sources, rows),
            *wrongs,
            *claims.of_binds(nested, rows, sources),
        ):
            self.wrong(self.given(*key), text)
        defaults = Config()
        get = self.values.get
        return Config(
            usr=get(("usr", "source"), defaults.usr),
            etc=get(("etc", "source"), defaults.etc),
            var=get(("var", "source"), defaults.var),
            root_readonly=get(("root", "readonly"), defaults.root_readonly),
            wait=get(("boot", "wait"), defaults.wait),
            hold_back=get(("boot", "hold_back"), defaults.hold_back),
            rows=rows,
            tombs=nested,
            log_level=get(("log", "level"), defaults.log_level),
            tripwire=Tripwire(
                get(("tripwire", "default"), defaults.tripwire.default),
                tuple(self.policies.items()),
                get(("tripwire", "allow"), ()),
            ),
            files=contents,
        )

    def merged_rows(self) -> tuple[Row, ...]:
        """The chosen table with the configured rows over it, checked one by one."""
        builtin = {
            row.path: row for row in TABLES[self.values.get(("layout", "table"), "silverblue")]
        }
        merged: list[Row] = []
        for path in dict.fromkeys((*builtin, *self.rows)):
            change = self.rows.get(path, {})
            if change is None:
                continue
            base = builtin.get(path)
            if base is None and "target" not in change:
                text = f'has no target; give it one, such as target = "/var{path}"'
                self.wrong(("links", path), text)
                continue
            row = base or Row(path, "")
            made = Row(
                path,
                change.get("target", row.target),
                change.get("kind", row.kind),
                change.get("mode", row.mode),
                row.inside,
            )
            # Silverblue's /media and /tmp lead elsewhere, and may go on doing so.
            if base is None or made.target != base.target:
                try:
                    rules.below_var(made.directory)
                except Wrong as error:
                    self.wrong(self.given("links", path, "target"), str(error))
                    continue
            merged.append(made)
        return tuple(merged)

    def given(self, *key: str) -> Key:
        """The longest part of `key` that a file contains."""
        length = len(key)
        while length > 1 and key[:length] not in self.places:
            length -= 1
        return key[:length]

    def require_identifiers(self, tombs: tuple[TombConfig, ...]) -> None:
        """Something says of each tomb which volume it is, or would, were it not for a mistake."""
        for tomb in tombs:
            given = any(("tomb", tomb.name, name) in self.places for name in IDENTIFIERS)
            table = dotted(("tomb", tomb.name, ""))[:-2]
            if not given and not any(error.key.startswith(table) for error in self.errors):
                names = ", ".join(IDENTIFIERS[:-1])
                text = f"nothing says which volume it is; give it {names} or {IDENTIFIERS[-1]}"
                self.wrong(("tomb", tomb.name), text)
