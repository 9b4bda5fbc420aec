"""The interfaces every object has, and the errors the D-Bus specification names."""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from immud import log
from immud.bus.adapter import BusError, Call, variant
from immud.bus.vtable import Emits, Interface, Method, Property, Signal, no_arguments

DBUS = "org.freedesktop.DBus"
PEER = f"{DBUS}.Peer"
INTROSPECTABLE = f"{DBUS}.Introspectable"
PROPERTIES = f"{DBUS}.Properties"
OBJECT_MANAGER = f"{DBUS}.ObjectManager"

FAILED = f"{DBUS}.Error.Failed"
INVALID_ARGS = f"{DBUS}.Error.InvalidArgs"
LIMITS_EXCEEDED = f"{DBUS}.Error.LimitsExceeded"
NO_REPLY = f"{DBUS}.Error.NoReply"
PROPERTY_READ_ONLY = f"{DBUS}.Error.PropertyReadOnly"
UNKNOWN_INTERFACE = f"{DBUS}.Error.UnknownInterface"
UNKNOWN_METHOD = f"{DBUS}.Error.UnknownMethod"
UNKNOWN_OBJECT = f"{DBUS}.Error.UnknownObject"
UNKNOWN_PROPERTY = f"{DBUS}.Error.UnknownProperty"

DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    '"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
MACHINE_ID = "/etc/machine-id"

Authorize = Callable[[Call, str], Awaitable[None]]


def read(member: Property) -> Any:
    """A property's value as a variant. A getter that raises, or whose value does not fit the
    signature, is a defect, and nobody else's problem."""
    try:
        return variant(member.signature, member.get())
    except Exception as error:
        log.get(property=member.name).defect(f"The property {member.name} has no value.", error)
        raise BusError(
            FAILED, f"{member.name} cannot be read; the journal of immud.service says why."
        ) from None


def get_all(interface: Interface) -> dict[str, Any]:
    """What can be read, as a{sv}."""
    values = {}
    for member in interface.properties.values():
        with contextlib.suppress(BusError):
            values[member.name] = read(member)
    return values


def snapshot(table: Mapping[str, Interface]) -> dict[str, dict[str, Any]]:
    """The values whose change is announced, as variants, by interface and property."""
    values: dict[str, dict[str, Any]] = {}
    for name, interface in table.items():
        values[name] = {}
        for member in interface.properties.values():
            if member.emits in (Emits.VALUE, Emits.INVALIDATES):
                # Silent here, which runs at every change: whoever reads it hears of it.
                with contextlib.suppress(Exception):
                    values[name][member.name] = variant(member.signature, member.get())
    return values


def peer() -> Interface:
    """org.freedesktop.DBus.Peer, which answers on any path."""

    def machine_id() -> str:
        with open(MACHINE_ID, encoding="ascii") as file:
            return file.read().strip()

    return Interface(
        PEER,
        Method("Ping", no_arguments(lambda: None)),
        Method("GetMachineId", no_arguments(machine_id), gives=("s machine_uuid",)),
    )


def introspectable(table: Mapping[str, Interface], children: Iterable[str]) -> Interface:
    """org.freedesktop.DBus.Introspectable; `table` holds the other interfaces, filled by
    the time somebody asks."""

    def introspect() -> str:
        parts = [interface.xml() for interface in (peer(), *table.values())]
        parts += [f'<node name="{name}"/>' for name in children]
        lines = "".join(f"  {line}\n" for part in parts for line in part.splitlines())
        return f"{DOCTYPE}<node>\n{lines}</node>\n"

    return Interface(
        INTROSPECTABLE,
        Method("Introspect", no_arguments(introspect), gives=("s xml_data",)),
    )


def properties(
    table: Mapping[str, Interface], authorize: Authorize, changed: Callable[[], None]
) -> Interface:
    """org.freedesktop.DBus.Properties over the interfaces of one object."""

    def interface(name: str) -> Interface:
        if name not in table:
            raise BusError(UNKNOWN_INTERFACE, f"There is no interface {name} here.")
        return table[name]

    def find(interface_name: str, name: str) -> Property:
        # An empty interface name means: whichever has it.
        candidates = [interface(interface_name)] if interface_name else list(table.values())
        for candidate in candidates:
            if name in candidate.properties:
                return candidate.properties[name]
        raise BusError(UNKNOWN_PROPERTY, f"{interface_name or 'This object'} has no {name}.")

    def get(call: Call, interface_name: str, name: str) -> Any:
        return read(find(interface_name, name))

    def everything(call: Call, interface_name: str) -> dict[str, Any]:
        if interface_name:
            return get_all(interface(interface_name))
        values: dict[str, Any] = {}
        for each in table.values():
            values |= get_all(each)
        return values

    async def change(call: Call, interface_name: str, name: str, value: Any) -> None:
        member = find(interface_name, name)
        if member.set is None:
            raise BusError(PROPERTY_READ_ONLY, f"{name} is read-only.")
        if value.signature != member.signature:
            raise BusError(
                INVALID_ARGS, f"{name} is of type {member.signature}, not {value.signature}."
            )
        await authorize(call, member.action)
        member.set(value.value)
        changed()

    return Interface(
        PROPERTIES,
        Method(
            "Get", get, takes=("s interface_name", "s property_name"), gives=("v value",), doc=""
        ),
        Method("GetAll", everything, takes=("s interface_name",), gives=("a{sv} props",)),
        Method("Set", change, takes=("s interface_name", "s property_name", "v value")),
        Signal(
            "PropertiesChanged",
            "s interface_name",
            "a{sv} changed_properties",
            "as invalidated_properties",
        ),
    )


def object_manager(managed: Callable[[], Mapping[str, Any]]) -> Interface:
    """org.freedesktop.DBus.ObjectManager; `managed` describes the objects below."""
    objects = "a{oa{sa{sv}}} object_paths_interfaces_and_properties"
    added = "a{sa{sv}} interfaces_and_properties"
    return Interface(
        OBJECT_MANAGER,
        Method("GetManagedObjects", no_arguments(managed), gives=(objects,)),
        Signal("InterfacesAdded", "o object_path", added),
        Signal("InterfacesRemoved", "o object_path", "as interfaces"),
    )
