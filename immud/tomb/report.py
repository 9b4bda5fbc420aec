"""What people are told of a tomb: its problems, and its life in the journal."""

from collections.abc import Mapping

from immud.log import Logger, MessageId
from immud.model import Problem, Severity, TombConfig, TombState
from immud.tomb.fs import health
from immud.tomb.fs.health import Health
from immud.tomb.machine import IDLE, Life
from immud.tomb.volume import Volume
from immud.watch.devices import Device

# What is told of a state in the journal: where it was reached and not merely passed.
_NOTEWORTHY = {
    TombState.OPEN: MessageId.TOMB_OPENED,
    TombState.LOST: MessageId.TOMB_LOST,
    TombState.FAILED: MessageId.TOMB_FAILED,
}


def problems(
    config: TombConfig,
    life: Life,
    volume: Volume,
    devices: Mapping[str, Device],
    state: Health,
) -> tuple[Problem, ...]:
    """What a person should know about a tomb."""
    name = config.name
    data = {"tomb": name}
    found = []
    if life.error and life.state is not TombState.OPEN:
        code = "tomb-failed" if life.state is TombState.FAILED else "tomb-residue"
        text = f"Tomb {name}: {life.error}"
        found.append(Problem(Severity.WARNING, code, text, data))
    if life.state is TombState.AMBIGUOUS:
        nodes = ", ".join(devices[key].devnode for key in life.candidates)
        text = f"Tomb {name} stays closed: {nodes} all answer to it. Unplug all but the right one."
        found.append(Problem(Severity.WARNING, "tomb-ambiguous", text, data))
    if life.state in (TombState.PRESENT, TombState.FAILED) and life.auto_open and life.waits:
        text = f"Tomb {name} is closed. {life.waits}"
        found.append(Problem(Severity.NOTICE, "tomb-waits", text, data))
    if life.state is TombState.OPEN and volume.hidden:
        text = (
            f"{volume.target} has files of its own, which tomb {name} hides while it is open. "
            "Close it to see them."
        )
        found.append(Problem(Severity.NOTICE, "tomb-hides-files", text, data))
    if life.state is TombState.OPEN:
        found += volume.notes
    if state.stale and life.state is TombState.OPEN:
        text = (
            f"Tomb {name} was not closed cleanly; its latest changes are in the journal and not "
            "visible while it is read-only. Open it writable to replay them."
        )
        found.append(Problem(Severity.NOTICE, "tomb-stale", text, data))
    if state.fault and life.state is TombState.OPEN:
        device = devices.get(life.device)
        how = health.repair(config, device.devnode if device else "DEVICE", state.fs_type)
        said = health.sentence(state, volume.damage, how)
        text = f"Tomb {name} is open, but {said}"
        found.append(Problem(Severity.WARNING, "tomb-damaged", text, {**data, "repair": how}))
    return tuple(found)


def transition(log: Logger, name: str, before: Life, life: Life) -> None:
    """Tell the journal of a state that was reached."""
    if life.state is before.state:
        return
    fields = {"was": str(before.state), "state": str(life.state)}
    text = f"Tomb {name} is {life.state}" + (f": {life.error}" if life.error else ".")
    message_id = _NOTEWORTHY.get(life.state)
    if life.state in IDLE and before.state in (TombState.CLOSING, TombState.LOST):
        message_id = message_id or MessageId.TOMB_CLOSED
        if not life.error:
            text = f"Tomb {name} is closed; nothing of it is left."
    if message_id is None:
        log.debug(text, **fields)
    elif life.error:
        log.warning(text, message_id=message_id, **fields)
    else:
        log.notice(text, message_id=message_id, **fields)
