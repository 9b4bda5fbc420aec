"""Who may change something: polkit decides, except for root.

The caller is named to polkit by its unique name on the bus, so that neither a
process id used again nor a set-user-id program can stand in for somebody else.
"""

from immud import log
from immud.bus.adapter import BusError, Call, Connection, Disconnected, variant
from immud.errors import InteractiveAuthorizationRequired, NotAuthorized

MANAGE_TOMBS = "org.immud1.manage-tombs"
MANAGE_SYSTEM = "org.immud1.manage-system"

AUTHORITY = "org.freedesktop.PolicyKit1"
AUTHORITY_PATH = "/org/freedesktop/PolicyKit1/Authority"
ALLOW_USER_INTERACTION = 1

ANSWER_TIMEOUT = 25.0
"""Seconds for a decision nobody is asked about."""
PERSON_TIMEOUT = 300.0
"""Seconds for one somebody types a password for; polkit's own agents give up sooner."""


class Polkit:
    """Asks over whatever connection there is at the moment."""

    def __init__(self) -> None:
        self.connection: Connection | None = None

    async def uid(self, call: Call) -> int:
        """The user id of the caller, as the bus got it from the kernel.

        Raises NotAuthorized where the caller is gone.
        """
        try:
            return await self._uid(call)
        except (BusError, Disconnected, TimeoutError, KeyError) as error:
            raise NotAuthorized(f"The bus does not know who asked: {error}") from None

    async def authorize(self, call: Call, action: str) -> None:
        """Return if the caller, of whom `call.uid` is known, may do `action`.

        Raises NotAuthorized, or InteractiveAuthorizationRequired where somebody would
        have to be asked and the call does not allow it.
        """
        if call.uid == 0:
            return
        try:
            authorized, challenge = await self._check(call, action)
        except (BusError, Disconnected, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            log.get(action=action, sender=call.sender).warning(
                f"polkit gave no answer: {reason}", message_id=log.MessageId.DENIED
            )
            raise NotAuthorized(
                f"Only root may do this while polkit does not answer ({reason}); "
                "see: systemctl status polkit"
            ) from None
        if authorized:
            return
        if challenge and not call.interactive:
            raise InteractiveAuthorizationRequired(
                f"{action} needs authentication, and the call does not allow asking for it "
                "(busctl: --allow-interactive-authorization=yes)."
            )
        log.get(action=action, sender=call.sender).notice(
            f"{call.member} was refused: polkit does not allow {action}.",
            message_id=log.MessageId.DENIED,
        )
        raise NotAuthorized(f"You are not authorised to do this ({action}).")

    async def _uid(self, call: Call) -> int:
        (credentials,) = await self._bus.call_bus("GetConnectionCredentials", "s", call.sender)
        return int(credentials["UnixUserID"])

    async def _check(self, call: Call, action: str) -> tuple[bool, bool]:
        subject = ["system-bus-name", {"name": variant("s", call.sender)}]
        ((authorized, challenge, _),) = await self._bus.call(
            AUTHORITY,
            AUTHORITY_PATH,
            f"{AUTHORITY}.Authority",
            "CheckAuthorization",
            "(sa{sv})sa{ss}us",
            subject,
            action,
            {},
            ALLOW_USER_INTERACTION if call.interactive else 0,
            "",
            timeout=PERSON_TIMEOUT if call.interactive else ANSWER_TIMEOUT,
        )
        return authorized, challenge

    @property
    def _bus(self) -> Connection:
        if self.connection is None:
            raise Disconnected("The bus is gone.")
        return self.connection
