"""Life on the bus: connecting when there is one, and again when it comes back.

The system bus starts after us, and may be restarted under us. Jobs, tombs and
mounts do not notice; callers find everything as it is.
"""

import asyncio
import contextlib
from collections.abc import Callable

from immud import log
from immud.bus import names
from immud.bus.adapter import BusError, Connection, Disconnected, Signal, bus_address
from immud.bus.appear import Appearance
from immud.bus.polkit import Polkit
from immud.bus.standard import DBUS
from immud.bus.stream import UNASKED_MAX, parse_address
from immud.bus.tree import Tree
from immud.model import Problem, Severity
from immud.service import Changed, Service

DO_NOT_QUEUE = 4
PRIMARY_OWNER, ALREADY_OWNER = 1, 4
RETRY_FIRST, RETRY_LAST = 0.02, 60.0
"""Seconds between attempts at a bus that is there and does not let us in."""
SHORT_LIFE = 5.0
"""Seconds; a connection that ended sooner is a failed attempt."""


class Link:
    """Keeps the service on the bus. `run` is a task of the daemon's and ends when cancelled.

    `problem` says what is wrong, or is None; `changed` is called when it changes.
    `connected` is called with each new connection, before the name is requested.
    """

    def __init__(
        self,
        service: Service,
        *,
        address: str = "",
        name: str = names.NAME,
        changed: Changed = lambda: None,
    ) -> None:
        self.problem: Problem | None = None
        self.connection: Connection | None = None
        self.connected: list[Callable[[Connection], None]] = []
        self._address = address or bus_address()
        self._name = name
        self._changed = changed
        self._polkit = Polkit()
        self._tree = Tree(service, self._polkit)
        self._log = log.get(name=name)

    async def run(self) -> None:
        """Be on the bus, for ever."""
        loop, delay = asyncio.get_running_loop(), RETRY_FIRST
        while True:
            # Watched only as long as there is no connection: much happens in /run.
            appearance = Appearance(parse_address(self._address))
            try:
                connection = await self._connect(appearance)
            finally:
                appearance.close()
            began = loop.time()
            try:
                await self._live(connection)
            finally:
                self._detach(connection)
            # A bus that lets us in and throws us out again is not asked in a tight circle.
            short = loop.time() - began < SHORT_LIFE
            delay = min(delay * 2, RETRY_LAST) if short else RETRY_FIRST
            await asyncio.sleep(delay)

    async def _connect(self, appearance: Appearance) -> Connection:
        """Try now, then at each sign of a socket, and at growing intervals while there is
        one that refuses: the socket is there (bind) a moment before it answers (listen)."""
        delay = RETRY_FIRST
        while True:
            appearance.forget()
            try:
                return await Connection.open(self._address, unasked_max=UNASKED_MAX)
            except FileNotFoundError:
                delay, limit = RETRY_FIRST, None
            except (OSError, BusError, TimeoutError) as error:
                self._log.debug(f"The bus does not let us in yet: {error!r}")
                delay, limit = min(delay * 2, RETRY_LAST), delay
            try:
                async with asyncio.timeout(limit):
                    await appearance.wait()
                delay = RETRY_FIRST
            except TimeoutError:
                pass

    async def _live(self, connection: Connection) -> None:
        """From the first moment of a connection to its last."""
        self.connection = self._polkit.connection = connection
        # Everything is there before anybody can know our name.
        self._tree.server.attach(connection)
        for callback in self.connected:
            callback(connection)
        owner_changed = asyncio.Event()
        connection.on_signal.append(self._ownership(owner_changed))
        with contextlib.suppress(BusError, Disconnected, TimeoutError):
            await connection.call_bus("AddMatch", "s", self._owner_rule())
        while not connection.lost.done():
            owner_changed.clear()
            try:
                refused = await self._take_name(connection)
            except (Disconnected, TimeoutError):
                break
            waiting = asyncio.ensure_future(owner_changed.wait())
            try:
                await asyncio.wait(
                    (waiting, connection.lost),
                    # Nobody announces that the policy of the bus has changed.
                    timeout=RETRY_LAST if refused else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                waiting.cancel()

    async def _take_name(self, connection: Connection) -> bool:
        """Whether the bus refused; then it has to be asked again."""
        try:
            (result,) = await connection.call_bus("RequestName", "su", self._name, DO_NOT_QUEUE)
        except BusError as error:
            self._set_problem(
                f"Could not acquire the bus name {self._name}: {error} "
                "Check that /usr/share/dbus-1/system.d/org.immud1.conf is installed."
            )
            return True
        if result in (PRIMARY_OWNER, ALREADY_OWNER):
            self._set_problem("")
            self._log.info("On the bus.", message_id=log.MessageId.BUS_CONNECTED)
        else:
            self._set_problem(
                f"Another process owns the bus name {self._name}. "
                f"Find it with: busctl status {self._name}"
            )
        return False

    def _owner_rule(self) -> str:
        return f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{self._name}'"

    def _ownership(self, changed: asyncio.Event) -> Callable[[Signal], None]:
        """NameLost comes unasked; NameOwnerChanged while somebody else has the name."""

        def listener(signal: Signal) -> None:
            if signal.sender != DBUS or not signal.body or signal.body[0] != self._name:
                return
            free = signal.member == "NameOwnerChanged" and not signal.body[2]
            if free or signal.member == "NameLost":
                changed.set()

        return listener

    def _detach(self, connection: Connection) -> None:
        self._tree.server.detach()
        self.connection = self._polkit.connection = None
        if connection.lost.done():
            self._log.notice(
                f"The bus is gone ({connection.lost.result()!r}); waiting for the next.",
                message_id=log.MessageId.BUS_LOST,
            )
        connection.close()

    def _set_problem(self, text: str) -> None:
        data = {"name": self._name}
        problem = Problem(Severity.ERROR, "bus-name", text, data) if text else None
        if problem != self.problem:
            self.problem = problem
            if problem:
                self._log.error(text, message_id=log.MessageId.BUS_NAME_TAKEN)
            self._changed()
