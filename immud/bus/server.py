"""Objects on the bus: interfaces as tables, dispatch, properties, introspection.

An interface is a table of members, as an sd-bus vtable is, whose functions are
closures over the object they are about. Two kinds of function run here: getters,
which are plain and quick, and method handlers, which may be coroutines and then run
as a task each. Objects exist whether or not there is a connection; `attach` puts
them on one.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from immud import log
from immud.bus import standard
from immud.bus.adapter import BusError, Call, Connection, Disconnected
from immud.bus.standard import Authorize, get_all, snapshot
from immud.bus.vtable import Emits, Interface, Method
from immud.errors import ImmudError

Identify = Callable[[Call], Awaitable[int]]

CALLS_PER_PEER = 64
"""Handlers one peer may keep busy at once; a call that expects no reply is not
counted by the limits of the bus itself."""
CALLS_PER_USER = 128
"""The same for a user other than root, over all his peers, also those that are gone: nobody says
that they are, and a handler goes on until it has its answer."""
CALLS_UNKNOWN = 1024
"""Calls of which the bus has been asked, and has not said yet, whose they are."""


class Server:
    """The objects and the calls to them. `manager_path` is where the ObjectManager lives.

    `identify` gives the user id of a caller, for handlers that are coroutines.
    """

    def __init__(self, manager_path: str, authorize: Authorize, identify: Identify) -> None:
        self.manager_path = manager_path
        self.objects: dict[str, dict[str, Interface]] = {}
        self._authorize, self._identify = authorize, identify
        self._connection: Connection | None = None
        self._published: dict[str, dict[str, dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()
        self._users: Counter[int] = Counter()

    # Connections

    def attach(self, connection: Connection) -> None:
        """Answer the calls that come over this connection."""
        self._connection = connection
        connection.on_call = lambda call: self._dispatch(connection, call)
        self.refresh()

    def detach(self) -> None:
        """The connection is lost: nobody is left to answer."""
        self._connection = None
        for task in tuple(self._tasks):
            task.cancel()

    # Objects

    def export(self, path: str, *interfaces: Interface) -> None:
        """Add an object, with InterfacesAdded if it is one of the ObjectManager's."""
        table = {interface.name: interface for interface in interfaces}
        self.objects[path] = table
        self._published[path] = snapshot(table)
        if self._manages(path):
            self._emit_manager("InterfacesAdded", "oa{sa{sv}}", path, self._describe(path))

    def unexport(self, path: str) -> None:
        """Remove an object, with InterfacesRemoved."""
        table = self.objects.pop(path)
        del self._published[path]
        if self._manages(path):
            self._emit_manager("InterfacesRemoved", "oas", path, list(table))

    def refresh(self) -> None:
        """Send PropertiesChanged for whatever differs from what was published last."""
        for path, table in self.objects.items():
            now = snapshot(table)
            before, self._published[path] = self._published[path], now
            for name, interface in table.items():
                self._publish(path, interface, before.get(name, {}), now.get(name, {}))

    def _publish(
        self, path: str, interface: Interface, before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> None:
        changed, invalidated = {}, []
        for name in before.keys() | now.keys():
            if name in before and name in now and before[name] == now[name]:
                continue
            if name in now and interface.properties[name].emits is Emits.VALUE:
                changed[name] = now[name]
            else:
                invalidated.append(name)
        if changed or invalidated:
            self.emit(
                path,
                standard.PROPERTIES,
                "PropertiesChanged",
                "sa{sv}as",
                interface.name,
                changed,
                invalidated,
            )

    def emit(self, path: str, interface: str, member: str, signature: str, *body: Any) -> None:
        """Send a signal, if there is a connection."""
        if self._connection is not None:
            self._connection.emit(path, interface, member, signature, *body)

    def _emit_manager(self, member: str, signature: str, *body: Any) -> None:
        self.emit(self.manager_path, standard.OBJECT_MANAGER, member, signature, *body)

    def _manages(self, path: str) -> bool:
        return path.startswith(self.manager_path + "/")

    def _describe(self, path: str) -> dict[str, dict[str, Any]]:
        return {name: get_all(interface) for name, interface in self.objects[path].items()}

    # Calls

    def _dispatch(self, connection: Connection, call: Call) -> None:
        try:
            method, interface = self._find(call)
            # At once: some handlers take minutes, and anybody may send as many as the bus lets him.
            call.keep(method.fds)
            result = self._enter(call, method, interface)
        except Exception as error:
            self._fail(connection, call, error)
            call.close()
        else:
            if inspect.isawaitable(result):
                self._run(connection, call, method, result)
            else:
                self._finish(connection, call, method, result)
                call.close()

    def _find(self, call: Call) -> tuple[Method, Interface]:
        table = self._table(call.path)
        if call.interface == standard.PEER:
            table = {standard.PEER: standard.peer()}
        elif table is None:
            raise BusError(standard.UNKNOWN_OBJECT, f"There is no object {call.path}.")
        interfaces = [table[call.interface]] if call.interface in table else []
        if not call.interface:  # allowed, and then the member alone decides
            interfaces = list(table.values())
        elif not interfaces:
            raise BusError(
                standard.UNKNOWN_INTERFACE, f"{call.path} has no interface {call.interface}."
            )
        for interface in interfaces:
            if method := interface.methods.get(call.member):
                return method, interface
        where = call.interface or call.path
        raise BusError(standard.UNKNOWN_METHOD, f"{where} has no method {call.member}.")

    def _table(self, path: str) -> dict[str, Interface] | None:
        """The interfaces at a path, the standard ones too; None where nothing is."""
        children = self._children(path)
        own = self.objects.get(path)
        if own is None and not children:
            return None
        table = dict(own or {})
        table[standard.INTROSPECTABLE] = standard.introspectable(table, children)
        if own is not None:
            table[standard.PROPERTIES] = standard.properties(own, self._authorize, self.refresh)
        if path == self.manager_path:
            table[standard.OBJECT_MANAGER] = standard.object_manager(self._managed)
        return table

    def _managed(self) -> dict[str, Any]:
        return {path: self._describe(path) for path in self.objects if self._manages(path)}

    def _children(self, path: str) -> list[str]:
        """Names one level below: /job/10 is below /job, and is no child of /job/1."""
        prefix = path.rstrip("/") + "/"
        below = (other[len(prefix) :] for other in self.objects if other.startswith(prefix))
        return sorted({name.partition("/")[0] for name in below if name})

    def _enter(self, call: Call, method: Method, interface: Interface) -> Any:
        if call.signature != method.takes_signature:
            raise BusError(
                standard.INVALID_ARGS,
                f"{interface.name}.{method.name} takes ({method.takes_signature}), "
                f"not ({call.signature}).",
            )
        if not method.action:
            return method.function(call, *call.body)
        return self._enter_authorized(call, method)

    async def _enter_authorized(self, call: Call, method: Method) -> Any:
        await self._authorize(call, method.action)
        result = method.function(call, *call.body)
        return await result if inspect.isawaitable(result) else result

    def _run(
        self, connection: Connection, call: Call, method: Method, result: Awaitable[Any]
    ) -> None:
        unknown = len(self._tasks) - self._users.total()
        if self._busy[call.sender] >= CALLS_PER_PEER or unknown >= CALLS_UNKNOWN:
            if inspect.iscoroutine(result):
                result.close()
            self._fail(connection, call, _too_many())
            call.close()
            return
        self._busy[call.sender] += 1
        task = asyncio.get_running_loop().create_task(
            self._await(connection, call, method, result), name=f"{call.member} of {call.sender}"
        )
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Here rather than in `_await`, which a task cancelled early never enters.
            self._tasks.discard(task)
            self._busy[call.sender] -= 1
            if not self._busy[call.sender]:
                del self._busy[call.sender]
            if task.cancelled():
                text = "immud stopped before it had an answer; ask again."
                connection.reply_error(call, standard.NO_REPLY, text)
            if inspect.iscoroutine(result):
                result.close()
            call.close()

        task.add_done_callback(ended)

    async def _await(
        self, connection: Connection, call: Call, method: Method, result: Awaitable[Any]
    ) -> None:
        try:
            async with self._admitted(call):
                value = await result
        except Exception as error:
            self._fail(connection, call, error)
        else:
            self._finish(connection, call, method, value)

    @asynccontextmanager
    async def _admitted(self, call: Call) -> AsyncIterator[None]:
        """Who calls, and one more call of his. Raises BusError where that is one too many."""
        call.uid = await self._identify(call)
        if call.uid != 0 and self._users[call.uid] >= CALLS_PER_USER:
            raise _too_many()
        self._users[call.uid] += 1
        try:
            yield
        finally:
            self._users -= Counter((call.uid,))

    def _finish(self, connection: Connection, call: Call, method: Method, value: Any) -> None:
        body = () if value is None else value if isinstance(value, tuple) else (value,)
        try:
            connection.reply(call, method.gives_signature, *body)
        except Disconnected:
            pass  # the peer learns from its own connection
        except Exception as error:
            self._fail(connection, call, error)

    def _fail(self, connection: Connection, call: Call, error: Exception) -> None:
        """An exception as an error reply: a sentence for the caller, never a traceback."""
        if isinstance(error, BusError):
            name, text = error.name, str(error)
        elif isinstance(error, ImmudError):
            name, text = error.bus_name, str(error)
        else:
            log.get(member=call.member, path=call.path).defect("A call on the bus failed.", error)
            name = standard.FAILED
            text = f"{call.member} failed inside immud; the journal of immud.service says why."
        connection.reply_error(call, name, text)


def _too_many() -> BusError:
    return BusError(standard.LIMITS_EXCEEDED, "Too many calls are under way.")
