"""The life of one tomb: `step(life, event) -> (life, actions)`. Pure.

At most one action of the slow kind, a *work*, runs at any time. It ends with
Done or Failed, or is ended by STOP, after which nothing is heard of it. What a
work really left behind is never assumed: RETREAT and PURGE ask the kernel and
remove what they find.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from immud.model import TombState as S


class Action(StrEnum):
    """What the owner is to do. All but STOP, OPENED and CLOSED are works."""

    UNLOCK = "unlock"
    CHECK = "check"
    MOUNT = "mount"
    UNMOUNT = "unmount"
    """Unmount politely; fails where somebody is in the way."""
    UNMAP = "unmap"
    EJECT = "eject"
    RETREAT = "retreat"
    """Take back whatever an interrupted opening did."""
    PURGE = "purge"
    """The drive is gone: end who holds it, remove every trace."""
    STOP = "stop"
    OPENED = "opened"
    CLOSED = "closed"
    """Tell who asked to be told: the tomb is open, is about to be closed or is lost."""


@dataclass(frozen=True, slots=True)
class Found:
    """The kernel's state when the daemon starts: what an earlier one may have left.

    `device` is the key of the live device below a mapping of ours, empty where
    that device is gone.
    """

    candidates: tuple[str, ...]
    device: str = ""
    mapped: bool = False
    mounted: bool = False
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """The devices that answer to the configuration now; `lost` if the one in use is gone.

    In use is also one whose mapping is left of a closing that somebody was in the way of.
    `waits` says what else has to come before it can open, empty where nothing has.
    """

    candidates: tuple[str, ...]
    lost: bool = False
    waits: str = ""


@dataclass(frozen=True, slots=True)
class OpenAsked:
    """Somebody wants it open; with `answer` they bring what the question was about."""

    answer: bool = False


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """Somebody wants it closed, and with `eject` the drive switched off."""

    eject: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Who asked for what is going on does not want it any more."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Our mount is gone, by somebody else's hand; `again` if it went with what it was on."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The work under way succeeded."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The work under way failed; `text` says why and what to do."""

    text: str


Event = Found | Seen | OpenAsked | CloseAsked | Cancelled | Missing | Done | Failed


@dataclass(frozen=True, slots=True)
class Life:
    """Where a tomb is in its life. `device` is the key of the drive in use, or the only candidate.

    `spent` is a drive that is not opened by itself again: it was tried, or closed.
    """

    auto_open: bool = True
    state: S = S.ABSENT
    work: Action | None = None
    device: str = ""
    candidates: tuple[str, ...] = ()
    spent: str = ""
    error: str = ""
    eject: bool = False
    waits: str = ""


Next = tuple[Life, tuple[Action, ...]]

OPENING = frozenset({S.UNLOCKING, S.CHECKING})
IDLE = frozenset({S.ABSENT, S.PRESENT, S.FAILED, S.AMBIGUOUS})

_AFTER: dict[Action, tuple[S, Action]] = {
    Action.UNLOCK: (S.CHECKING, Action.CHECK),
    Action.CHECK: (S.CHECKING, Action.MOUNT),
    Action.UNMOUNT: (S.CLOSING, Action.UNMAP),
}


def step(life: Life, event: Event) -> Next:
    """What follows from `event`. What makes no sense in this state changes nothing."""
    after: Next = (life, ())
    match event:
        case Found():
            after = _found(life, event)
        case Seen():
            after = _seen(life, event)
        case OpenAsked() if not refusal(life, event):
            after = _open(life)
        case CloseAsked() if not refusal(life, event):
            after = _close(life, event.eject)
        case Cancelled() if life.state in OPENING:
            after = _back(life)
        case Missing() if life.state is S.OPEN:
            after = _mount_again(life) if event.again else _close_rest(life)
        case Done() if life.work:
            after = _done(life)
        case Failed() if life.work:
            after = _failed(life, event.text)
    return after


_NO_OPENING = {
    S.ABSENT: "Its drive is not plugged in.",
    S.AMBIGUOUS: "More than one drive answers to its configuration; unplug all but the right one.",
    S.UNLOCKING: "It is being opened already.",
    S.CHECKING: "It is being opened already; immud status says what it waits for, if it does.",
    S.OPEN: "It is open already.",
    S.CLOSING: "It is being closed; wait until it is.",
    S.LOST: "Its drive was pulled out, and what is left of it is being removed.",
}
_NO_CLOSING = {
    S.ABSENT: "It is not open.",
    S.AMBIGUOUS: "It is not open.",
    S.PRESENT: "It is not open.",
    S.CLOSING: "It is being closed already.",
    S.LOST: _NO_OPENING[S.LOST],
}


def refusal(life: Life, event: OpenAsked | CloseAsked) -> str:
    """Why `event` cannot be granted in this state, as a sentence; empty where it can."""
    if isinstance(event, OpenAsked):
        answering = life.state is S.UNLOCKING and event.answer
        waits = "" if event.answer else life.waits
        return "" if answering else _NO_OPENING.get(life.state, waits)
    switching_off = life.state is S.PRESENT and event.eject
    return "" if switching_off else _NO_CLOSING.get(life.state, "")


def _begin(life: Life, state: S, work: Action, **fields: Any) -> Next:
    """Start `work`, after ending what runs."""
    stop = (Action.STOP,) if life.work else ()
    return replace(life, state=state, work=work, **fields), (*stop, work)


def _open(life: Life) -> Next:
    device = life.candidates[0] if life.state in IDLE else life.device
    return _begin(life, S.UNLOCKING, Action.UNLOCK, device=device, spent=device, error="")


def _close(life: Life, eject: bool) -> Next:
    if life.state is S.OPEN:
        after, actions = _begin(life, S.CLOSING, Action.UNMOUNT, eject=eject, error="")
        return after, (Action.CLOSED, *actions)
    work = Action.EJECT if life.state is S.PRESENT else Action.RETREAT
    return _begin(life, S.CLOSING, work, eject=eject, error="", spent=life.device)


def _close_rest(life: Life) -> Next:
    after, actions = _begin(life, S.CLOSING, Action.UNMAP, spent=life.device, error="")
    return after, (Action.CLOSED, *actions)


def _mount_again(life: Life) -> Next:
    """Nothing was unmounted but from under us: the file system needs no checker."""
    after, actions = _begin(life, S.CHECKING, Action.MOUNT)
    return after, (Action.CLOSED, *actions)


def _back(life: Life) -> Next:
    return _begin(life, S.CLOSING, Action.RETREAT, error="")


def _found(life: Life, event: Found) -> Next:
    if life != Life(auto_open=life.auto_open):
        return life, ()
    life = replace(life, candidates=event.candidates, waits=event.waits)
    if not event.mapped and not event.mounted:
        return _settle(life)
    life = replace(life, device=event.device, spent=event.device)
    if not event.device:
        return _begin(life, S.LOST, Action.PURGE)
    if event.mounted:
        return replace(life, state=S.OPEN), (Action.OPENED,)
    if life.auto_open and len(event.candidates) < 2:
        return _begin(life, S.CHECKING, Action.CHECK)
    return _begin(life, S.CLOSING, Action.RETREAT)


def _seen(life: Life, event: Seen) -> Next:
    # What it waited for is there: that is as good as plugging in the drive itself.
    came = bool(life.waits) and not event.waits
    spent = life.spent if life.spent in event.candidates and not came else ""
    idle = life.state in IDLE
    if idle and not event.lost:
        settled = life.state is S.FAILED and event.candidates == (life.device,) and not came
        life = replace(life, candidates=event.candidates, spent=spent, waits=event.waits)
        return (life, ()) if settled else _settle(replace(life, error=""))
    life = replace(life, candidates=event.candidates, waits=event.waits)
    if life.work is Action.EJECT:
        # The drive goes before this has ended, and nothing of the tomb is left on it.
        return replace(life, spent=spent), ()
    if life.state is S.LOST:
        return life, ()
    if event.lost:
        closed = (Action.CLOSED,) if life.state is S.OPEN else ()
        spent = spent if idle else ""
        after, actions = _begin(life, S.LOST, Action.PURGE, eject=False, spent=spent, error="")
        return after, (*closed, *actions)
    if life.state in OPENING and len(event.candidates) > 1:
        return _back(life)
    return life, ()


def _done(life: Life) -> Next:
    assert life.work
    work, life = life.work, replace(life, work=None)
    if follows := _AFTER.get(work):
        return _begin(life, *follows)
    if work is Action.MOUNT:
        return replace(life, state=S.OPEN), (Action.OPENED,)
    if life.eject and work in (Action.UNMAP, Action.RETREAT):
        return _begin(life, S.CLOSING, Action.EJECT)
    return _settle(life, failed=bool(life.error))


def _failed(life: Life, text: str) -> Next:
    work, life = life.work, replace(life, work=None, error=text)
    if work in (Action.UNLOCK, Action.CHECK, Action.MOUNT):
        return _begin(life, S.CLOSING, Action.RETREAT)
    if work is Action.UNMOUNT:
        # Still mounted, so still open, and those who were told otherwise are told again.
        return replace(life, state=S.OPEN, eject=False), (Action.OPENED,)
    return _settle(life, failed=work is not Action.PURGE)


def _settle(life: Life, *, failed: bool = False) -> Next:
    """Nothing runs and nothing is open: the state follows from the drives that are there."""
    life = replace(life, eject=False, work=None)
    if len(life.candidates) != 1:
        state = S.AMBIGUOUS if life.candidates else S.ABSENT
        return replace(life, state=state, device="", spent=life.spent), ()
    device = life.candidates[0]
    if failed and device == life.device:
        return replace(life, state=S.FAILED), ()
    life = replace(life, device=device)
    if life.auto_open and device != life.spent and not life.waits:
        return _begin(life, S.UNLOCKING, Action.UNLOCK, spent=device, error="")
    return replace(life, state=S.PRESENT), ()
