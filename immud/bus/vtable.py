"""Interfaces as tables of members, like an sd-bus vtable."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from immud.bus.adapter import Call


class Emits(Enum):
    """The values of the annotation EmitsChangedSignal (D-Bus specification)."""

    VALUE = "true"
    INVALIDATES = "invalidates"
    CONSTANT = "const"
    NEVER = "false"


class Method:
    """A method. Arguments are written as "signature name", like `"a{sv} options"`.

    `function` gets the call and its arguments, with variants still in them, and
    returns nothing, one value or a tuple of several, or an awaitable of these. It
    runs once `action` of polkit, if there is one, is authorised. Of the descriptors
    that come with a call it gets the first `fds`.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        takes: tuple[str, ...] = (),
        gives: tuple[str, ...] = (),
        action: str = "",
        fds: int = 0,
        doc: str = "",
    ) -> None:
        self.name, self.function, self.action, self.doc = name, function, action, doc
        self.fds = fds
        self.takes, self.gives = takes, gives
        self.takes_signature = "".join(argument.split()[0] for argument in takes)
        self.gives_signature = "".join(argument.split()[0] for argument in gives)

    def xml(self) -> str:
        arguments = [_argument(text, "in") for text in self.takes]
        arguments += [_argument(text, "out") for text in self.gives]
        return _element("method", self.name, "", [*arguments, _doc(self.doc)])


class Signal:
    """A signal, for introspection; `Server.emit` sends it."""

    def __init__(self, name: str, *arguments: str, doc: str = "") -> None:
        self.name, self.arguments, self.doc = name, arguments, doc

    def xml(self) -> str:
        arguments = [_argument(text) for text in self.arguments]
        return _element("signal", self.name, "", [*arguments, _doc(self.doc)])


class Property:
    """A property. `get` is quick and has no effect; `set`, if any, runs once `action` is
    authorised, with a value of the right type, and raises BusError where it will not do.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        get: Callable[[], Any],
        *,
        emits: Emits = Emits.VALUE,
        set: Callable[[Any], None] | None = None,
        action: str = "",
        doc: str = "",
    ) -> None:
        self.name, self.signature, self.doc = name, signature, doc
        self.get, self.set, self.emits, self.action = get, set, emits, action

    def xml(self) -> str:
        access = "read" if self.set is None else "readwrite"
        emits = _annotation("org.freedesktop.DBus.Property.EmitsChangedSignal", self.emits.value)
        attributes = f' type="{self.signature}" access="{access}"'
        return _element("property", self.name, attributes, [emits, _doc(self.doc)])


class Interface:
    """A name and its members."""

    def __init__(self, name: str, *members: Method | Property | Signal) -> None:
        self.name = name
        self.members = members
        self.methods = {m.name: m for m in members if isinstance(m, Method)}
        self.properties = {m.name: m for m in members if isinstance(m, Property)}

    def xml(self) -> str:
        return _element("interface", self.name, "", [member.xml() for member in self.members])


def no_arguments(function: Callable[[], Any]) -> Callable[[Call], Any]:
    """For methods that neither take anything nor care who calls."""
    return lambda call: function()


def _element(tag: str, name: str, attributes: str, children: list[str]) -> str:
    inside = "".join(f"  {line}\n" for child in children if child for line in child.splitlines())
    return f"<{tag} name={_quoted(name)}{attributes}>\n{inside}</{tag}>"


def _argument(text: str, direction: str = "") -> str:
    signature, name = text.split()
    suffix = f' direction="{direction}"' if direction else ""
    return f'<arg type="{signature}" name="{name}"{suffix}/>'


def _annotation(name: str, value: str) -> str:
    return f"<annotation name={_quoted(name)} value={_quoted(value)}/>"


def _doc(text: str) -> str:
    """What GDBus calls a doc string; d-feet and gdbus-codegen show it."""
    return _annotation("org.gtk.GDBus.DocString", text) if text else ""


def _quoted(text: str) -> str:
    """An XML attribute's value. The standard library's own would bring an HTTP client, 4 MB."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return f'"{text}"'
