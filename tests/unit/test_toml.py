"""The locator: for whatever TOML there is, the lines tomllib does not tell."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.config.toml import Key, locate, parse
from immud.errors import ConfigError


def test_every_way_to_write_a_key() -> None:
    text = (
        "# comment = 1\n"  # 1
        'bare = "a # b = [c]"\n'  # 2
        '"quo.ted" = 1 # [no.table]\n'  # 3
        "'lit' . dotted = true\n"  # 4
        "\n"
        "[table]\n"  # 6
        'multi = """\n'  # 7
        "not = 1\n"
        '[nor.this] \\"""\n'
        '"""\n'
        "raw = '''\n"  # 11
        "x = '\n"
        "'''\n"
        "array = [ # comment ]\n"  # 14
        "  1, 'a]', # }\n"  # 15
        "  [2,\n"  # 16
        "   3],\n"  # 17
        "  { x = 1, y.z = 2 },\n"  # 18
        "]\n"
        'inline = { "a b" = { c = "}" }, d = [] } \n'  # 20
        "when = 1979-05-27 07:32:00Z\n"  # 21
        "[ table . 'sub.table' ]\n"  # 22
        "k = 1.5\n"  # 23
        "[[list]]\n"  # 24
        "k = 1\n"  # 25
        "[list.in]\n"  # 26
        "[[list]]\n"  # 27
        "[list.in]\n"  # 28
        'end = """two quotes""""" # = 1\n'  # 29
        "end2 = '''[one]''''\n"  # 30
        'none = """"""\n'  # 31
        "last = 'x'"  # 32
    )
    tomllib.loads(text)
    assert locate(text) == {
        ("bare",): 2,
        ("quo.ted",): 3,
        ("lit",): 4,
        ("lit", "dotted"): 4,
        ("table",): 6,
        ("table", "multi"): 7,
        ("table", "raw"): 11,
        ("table", "array"): 14,
        ("table", "array", 0): 15,
        ("table", "array", 1): 15,
        ("table", "array", 2): 16,
        ("table", "array", 2, 0): 16,
        ("table", "array", 2, 1): 17,
        ("table", "array", 3): 18,
        ("table", "array", 3, "x"): 18,
        ("table", "array", 3, "y"): 18,
        ("table", "array", 3, "y", "z"): 18,
        ("table", "inline"): 20,
        ("table", "inline", "a b"): 20,
        ("table", "inline", "a b", "c"): 20,
        ("table", "inline", "d"): 20,
        ("table", "when"): 21,
        ("table", "sub.table"): 22,
        ("table", "sub.table", "k"): 23,
        ("list",): 24,
        ("list", 0): 24,
        ("list", 0, "k"): 25,
        ("list", 0, "in"): 26,
        ("list", 1): 27,
        ("list", 1, "in"): 28,
        ("list", 1, "in", "end"): 29,
        ("list", 1, "in", "end2"): 30,
        ("list", 1, "in", "none"): 31,
        ("list", 1, "in", "last"): 32,
    }


def test_line_breaks_of_windows_count_once() -> None:
    _, lines = parse(b"a = 1\r\n\r\n[b]\r\nc = '''\r\n\r\n'''\r\nd = 1\r\n", "f")
    assert lines == {("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "d"): 7}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a = 1\nb", 2),
        (b"a = 1\nb = [\n1,\n", 3),
        (b"a = 1\n\n[b]\n[b]\n", 4),
        (b"a = " + b"[" * 5000 + b"]" * 5000, 1),
        (b"a = 1\nb = " + b"9" * 5000, 2),
        (b"a = 1\r\nb = 2020-13-01\r\n", 2),
        (b"a = 1\n\xff", 2),
    ],
)
def test_whatever_is_not_toml_is_an_error_with_a_line(data: bytes, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, "f")
    assert (caught.value.file, caught.value.line) == ("f", line)


@given(st.binary(max_size=60) | st.text("ab=.[]{}'\"\\#,1 \n\r", max_size=40).map(str.encode))
def test_no_input_makes_anything_but_a_config_error(data: bytes) -> None:
    try:
        values, lines = parse(data, "f")
    except ConfigError as error:
        assert 1 <= error.line <= data.count(b"\n") + 1  # noqa: PT017 - any line of the file
    else:
        assert set(lines) == set(_keys(values))


# --- documents written from values, so that every key's line is known -------------

NAMES = st.text("ab -.'\"\\é\n#=[]", min_size=0, max_size=4)
SCALARS = st.one_of(
    st.integers(-99, 99),
    st.booleans(),
    st.text("ab\"'\\\n#={}[], ", max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3), max_size=3)


def _keys(value: Any, key: Key = ()) -> list[Key]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [key] if key else []
    for name, inner in items:
        if isinstance(inner, dict | list):
            found += _keys(inner, (*key, name))
        else:
            found.append((*key, name))
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class Writer:
    """Writes a document with awkward layout, and notes the line of each key as it goes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Key, int] = {}

    def put(self, text: str) -> None:
        self.text += text

    def note(self, key: Key) -> None:
        self.lines[key] = self.text.count("\n") + 1

    def gap(self, choices: tuple[str, ...] = ("", " ", "\n", " # ] } = x\n")) -> None:
        self.put(self.draw(st.sampled_from(choices)))

    def value(self, key: Key, value: Any) -> None:
        if isinstance(value, dict):
            self.put("{")
            for at, (name, inner) in enumerate(value.items()):
                self.put(", " if at else " ")
                self.note((*key, name))
                self.put(_quoted(name) + " = ")
                self.value((*key, name), inner)
            self.put("}")
        elif isinstance(value, list):
            self.put("[")
            for at, inner in enumerate(value):
                self.gap()
                self.put("," if at else "")
                self.gap()
                self.note((*key, at))
                self.value((*key, at), inner)
            self.gap()
            self.put("]")
        elif isinstance(value, bool):
            self.put(str(value).lower())
        elif isinstance(value, str) and self.draw(st.booleans()):
            body = value.replace("\\", "\\\\").replace('"', '\\"')
            self.put(f'"""\n{body}"""')
        else:
            self.put(_quoted(value) if isinstance(value, str) else str(value))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[Key, int]]:
    values = draw(TABLES)
    writer = Writer(draw)
    for table, content in values.items():
        writer.gap(("", "\n", "# [x]\n"))
        writer.note((table,))
        writer.put(f"[ {_quoted(table)} ]\n")
        for name, value in content.items():
            writer.gap(("", "  ", "\n", "# a = 1\n"))
            writer.note((table, name))
            writer.put(f"{_quoted(name)} = ")
            writer.value((table, name), value)
            writer.put(draw(st.sampled_from(("\n", " # b\n"))))
    return writer.text, values, writer.lines


@given(documents())
def test_every_key_of_any_document_is_found_on_its_line(
    document: tuple[str, dict[str, Any], dict[Key, int]],
) -> None:
    text, values, lines = document
    assert tomllib.loads(text) == values
    assert locate(text) == lines
