"""One client for the two JSON protocols of QEMU: QMP, and the guest agent's.

Both are lines of JSON over a stream socket (QEMU's `docs/interop/qmp-spec` and `qemu-ga-ref`);
QMP greets, has events and answers with the id of the question, the agent has a way to find its
place again after a restart of the guest.
"""

import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.process import HarnessError


class Disconnected(HarnessError):
    """The other end is gone: QEMU has ended."""


class Refused(HarnessError):
    """The command was answered with an error."""


class Connection:
    """A conversation over `channel`; `name` stands in errors."""

    def __init__(self, channel: socket.socket, name: str) -> None:
        self._channel, self._name = channel, name
        self._buffer = b""
        self.events: list[Mapping[str, Any]] = []

    def close(self) -> None:
        self._channel.close()

    def _receive(self, until: float) -> Mapping[str, Any] | None:
        """The next message, or None when there is none by `until` (CLOCK_MONOTONIC)."""
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left < 0 or not select.select([self._channel], [], [], left)[0]:
                return None
            try:
                data = self._channel.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise Disconnected(f"{self._name}: the connection has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        # 0xff is the agent's mark after a synchronisation; what stands before it is old.
        message: Mapping[str, Any] = json.loads(line.rpartition(b"\xff")[2])
        return message

    def _send(self, message: Mapping[str, Any], prefix: bytes = b"") -> None:
        try:
            self._channel.sendall(prefix + json.dumps(message).encode() + b"\n")
        except ConnectionError:
            raise Disconnected(f"{self._name}: the connection has ended") from None

    def _answer(self, command: str, until: float) -> Any:
        while (message := self._receive(until)) is not None:
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise Refused(f"{self._name}: {command}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]
        raise HarnessError(f"{self._name}: {command}: no answer in time")

    def execute(self, command: str, timeout: float = 30, **arguments: Any) -> Any:
        """What `command` returns. Underscores in argument names stand for dashes.

        Raises Refused for an error, HarnessError without an answer after `timeout` seconds.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._send({"execute": command, "arguments": named})
        return self._answer(command, time.monotonic() + timeout)

    # QMP

    def negotiate(self, timeout: float = 30) -> None:
        """Take QMP's greeting and leave capabilities negotiation."""
        if self._receive(time.monotonic() + timeout) is None:
            raise HarnessError(f"{self._name}: no greeting")
        self.execute("qmp_capabilities")

    def wait_for_event(
        self, wanted: Callable[[Mapping[str, Any]], bool], timeout: float
    ) -> Mapping[str, Any] | None:
        """The first event that is `wanted`, earlier ones included; None after `timeout` s."""
        until = time.monotonic() + timeout
        while True:
            for at, event in enumerate(self.events):
                if wanted(event):
                    return self.events.pop(at)
            message = self._receive(until)
            if message is None:
                return None
            self.events.append(message)

    # The guest agent

    def synchronise(self, mark: int, timeout: float) -> bool:
        """Whether the agent answers with `mark`: what was said before is then forgotten."""
        until = time.monotonic() + timeout
        command = {"execute": "guest-sync-delimited", "arguments": {"id": mark}}
        self._send(command, b"\xff")
        while (message := self._receive(until)) is not None:
            if message.get("return") == mark:
                return True
        return False
