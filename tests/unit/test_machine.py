"""The life of a tomb, played against a world that keeps count of what is left behind."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from immud.model import TombState as S
from immud.tomb.machine import (
    IDLE,
    OPENING,
    Action,
    Cancelled,
    CloseAsked,
    Done,
    Event,
    Failed,
    Found,
    Life,
    Missing,
    OpenAsked,
    Seen,
    refusal,
    step,
)

A, B = "/devices/a#1", "/devices/b#2"
WORKS = tuple(a for a in Action if a not in (Action.STOP, Action.OPENED, Action.CLOSED))


def play(*events: Event, auto: bool = True, life: Life | None = None) -> tuple[Life, list[Action]]:
    life = life or Life(auto_open=auto)
    told: list[Action] = []
    for event in events:
        life, actions = step(life, event)
        told += actions
    return life, told


OPENED = (Seen((A,)), Done(), Done(), Done())


def test_plugged_in_it_opens() -> None:
    life, told = play(*OPENED)
    assert (life.state, life.work, life.device) == (S.OPEN, None, A)
    assert told == [Action.UNLOCK, Action.CHECK, Action.MOUNT, Action.OPENED]


def test_without_auto_open_it_waits_to_be_asked() -> None:
    life, told = play(Seen((A,)), auto=False)
    assert (life.state, told) == (S.PRESENT, [])
    life, told = play(OpenAsked(), life=life)
    assert (life.state, told) == (S.UNLOCKING, [Action.UNLOCK])


def test_pulled_while_open_and_plugged_in_again_while_being_cleared() -> None:
    life, told = play(*OPENED, Seen((), lost=True))
    assert (life.state, told[-2:]) == (S.LOST, [Action.CLOSED, Action.PURGE])
    again, told = play(Seen((B,)), Done(), life=life)
    assert (again.state, again.device, told) == (S.UNLOCKING, B, [Action.UNLOCK])
    assert play(Done(), life=life)[0].state is S.ABSENT


def test_a_plug_without_a_sequence_number_is_a_new_one_too() -> None:
    life, told = play(*OPENED, Seen((), lost=True), Done(), Seen((A,)))
    assert (life.state, told[-1]) == (S.UNLOCKING, Action.UNLOCK)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_pulled_while_being_opened(done: int) -> None:
    life, told = play(Seen((A,)), *[Done()] * done, Seen((), lost=True))
    assert (life.state, told[-2:]) == (S.LOST, [Action.STOP, Action.PURGE])


def test_two_that_answer_are_both_left_alone() -> None:
    life, told = play(Seen((A, B)))
    assert (life.state, told) == (S.AMBIGUOUS, [])
    assert "More than one" in refusal(life, OpenAsked())
    assert play(Seen((B,)), life=life)[0].device == B


def test_a_twin_interrupts_opening_but_not_what_is_open() -> None:
    life, told = play(Seen((A,)), Done(), Seen((A, B)))
    assert (life.state, told[-2:]) == (S.CLOSING, [Action.STOP, Action.RETREAT])
    assert play(Done(), life=life)[0].state is S.AMBIGUOUS
    assert play(*OPENED, Seen((A, B)))[0].state is S.OPEN


def test_a_changed_label_closes_nothing() -> None:
    assert play(*OPENED, Seen(()))[0].state is S.OPEN


def test_a_failure_retreats_and_is_not_repeated_until_the_next_plug() -> None:
    life, told = play(Seen((A,)), Failed("wrong key"))
    assert told[-1] is Action.RETREAT
    life, told = play(Done(), Seen((A,)), life=life)
    assert (life.state, life.error, told) == (S.FAILED, "wrong key", [])
    assert play(OpenAsked(), life=life)[0].state is S.UNLOCKING
    assert play(Seen(()), life=life)[0].state is S.ABSENT
    assert play(Seen(()), Seen((B,)), life=life)[0].state is S.UNLOCKING


def test_closed_it_stays_closed_until_the_next_plug() -> None:
    life, told = play(*OPENED, CloseAsked(), Done(), Done(), Seen((A,)))
    assert (life.state, life.work) == (S.PRESENT, None)
    assert told[-3:] == [Action.CLOSED, Action.UNMOUNT, Action.UNMAP]


def test_somebody_in_the_way_keeps_it_open() -> None:
    life, told = play(*OPENED, CloseAsked(eject=True), Failed("bash (77) is in the way"))
    assert (life.state, told[-1], life.eject) == (S.OPEN, Action.OPENED, False)


def test_eject_switches_off_last() -> None:
    life, told = play(*OPENED, CloseAsked(eject=True), Done(), Done(), Done(), Seen(()))
    assert told[-3:] == [Action.UNMOUNT, Action.UNMAP, Action.EJECT]
    assert life.state is S.ABSENT
    assert play(CloseAsked(eject=True), life=Life(False, S.PRESENT, device=A, candidates=(A,)))[
        1
    ] == [Action.EJECT]


def test_a_drive_that_goes_while_it_is_switched_off_is_not_pulled() -> None:
    ejecting = (*OPENED, CloseAsked(eject=True), Done(), Done())
    life, told = play(*ejecting, Seen((), lost=True), Seen((), lost=True), Done())
    assert told[-1] is Action.EJECT
    assert (life.state, life.error) == (S.ABSENT, "")
    assert play(Seen((A,)), life=life)[0].state is S.UNLOCKING, "the next plug opens it"


def test_an_answer_interrupts_the_question() -> None:
    life, _ = play(Seen((A,)))
    assert refusal(life, OpenAsked())
    assert play(OpenAsked(answer=True), life=life)[1] == [Action.STOP, Action.UNLOCK]


def test_cancelling_goes_back_and_does_not_ask_again() -> None:
    life, told = play(Seen((A,)), Cancelled())
    assert told[-2:] == [Action.STOP, Action.RETREAT]
    assert play(Done(), Seen((A,)), life=life)[0].state is S.PRESENT


def test_unmounted_by_hand_the_mapping_follows() -> None:
    life, told = play(*OPENED, Missing(), Done())
    assert (life.state, told[-2:]) == (S.PRESENT, [Action.CLOSED, Action.UNMAP])


WAITS = "Plug in the drive with its key."


def test_the_tomb_before_its_key() -> None:
    life, told = play(Seen((A,), waits=WAITS))
    assert (life.state, told) == (S.PRESENT, [])
    assert refusal(life, OpenAsked()) == WAITS
    assert not refusal(life, OpenAsked(answer=True)), "a passphrase may do without the key"
    life, told = play(Seen((A,)), life=life)
    assert (life.state, told) == (S.UNLOCKING, [Action.UNLOCK])


def test_the_key_before_its_tomb() -> None:
    life, told = play(Seen((), waits=WAITS), Seen(()), Seen((A,)))
    assert (life.state, told) == (S.UNLOCKING, [Action.UNLOCK])


def test_the_key_pulled_while_it_is_read_and_plugged_in_again() -> None:
    life, told = play(Seen((A,)), Seen((A,), waits=WAITS), Failed("no key"), Done())
    assert (life.state, life.error) == (S.FAILED, "no key")
    life, told = play(Seen((A,)), life=life)
    assert (life.state, told) == (S.UNLOCKING, [Action.UNLOCK])


def test_the_key_is_not_needed_while_it_is_open() -> None:
    life, told = play(*OPENED, Seen((A,), waits=WAITS), Seen((A,)))
    assert (life.state, told[-1]) == (S.OPEN, Action.OPENED)
    life, told = play(CloseAsked(), Done(), Done(), life=life)
    assert (life.state, told[-1]) == (S.PRESENT, Action.UNMAP), "closed, it stays closed"
    life, told = play(Seen((A,), waits=WAITS), Seen((A,)), life=life)
    assert told == [Action.UNLOCK], "until its key is plugged in again"


@pytest.mark.parametrize(
    ("found", "auto", "state", "told"),
    [
        (Found(()), True, S.ABSENT, []),
        (Found((A,)), True, S.UNLOCKING, [Action.UNLOCK]),
        (Found((A,)), False, S.PRESENT, []),
        (Found((A,), waits=WAITS), True, S.PRESENT, []),
        (Found((A,), A, mapped=True, mounted=True), True, S.OPEN, [Action.OPENED]),
        (Found((A,), A, mapped=True), True, S.CHECKING, [Action.CHECK]),
        (Found((A,), A, mapped=True), False, S.CLOSING, [Action.RETREAT]),
        (Found((), "", mapped=True, mounted=True), True, S.LOST, [Action.PURGE]),
        (Found((B,), "", mapped=True), True, S.LOST, [Action.PURGE]),
    ],
)
def test_what_an_earlier_daemon_left(
    found: Found, auto: bool, state: S, told: list[Action]
) -> None:
    life, actions = play(found, auto=auto)
    assert (life.state, actions) == (state, told)


CANDIDATES = st.sampled_from([(), (A,), (B,), (A, B)])
EVENTS = st.one_of(
    st.builds(Found, CANDIDATES, st.sampled_from(["", A]), st.booleans(), st.booleans()),
    st.builds(Seen, CANDIDATES, st.booleans(), st.sampled_from(["", WAITS])),
    st.builds(OpenAsked, st.booleans()),
    st.builds(CloseAsked, st.booleans()),
    st.sampled_from([Cancelled(), Missing(), Done(), Failed("why")]),
)
LIVES = st.builds(
    Life,
    st.booleans(),
    st.sampled_from(S),
    st.sampled_from([None, *WORKS]),
    st.sampled_from(["", A]),
    CANDIDATES,
    st.sampled_from(["", A]),
    st.sampled_from(["", "why"]),
    st.booleans(),
    st.sampled_from(["", WAITS]),
)


def test_every_event_in_every_state_has_an_outcome() -> None:
    events = [Found((A,)), Seen(()), OpenAsked(), CloseAsked(), Cancelled(), Missing(), Done()]
    for state, event, work in product(S, [*events, Failed("why")], [None, *WORKS]):
        life, actions = step(Life(True, state, work, A, (A,)), event)
        assert isinstance(life.state, S)
        assert all(isinstance(action, Action) for action in actions)


@given(LIVES, EVENTS)
def test_what_is_refused_changes_nothing_and_what_is_not_does(life: Life, event: Event) -> None:
    if isinstance(event, OpenAsked | CloseAsked):
        consistent = bool(life.candidates) or life.state not in (S.PRESENT, S.FAILED)
        if refusal(life, event):
            assert step(life, event) == (life, ())
        elif consistent:
            assert step(life, event) != (life, ())


class World(RuleBasedStateMachine):
    """A machine, a kernel and a person: whatever they do, nothing is left of a pulled drive."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.work: Action | None = None
        self.mounted = self.opened = False
        self.mapped: set[str] = set()
        self.present: list[str] = []
        self.plugs = 0
        self.key = True

    def do(self, event: Event) -> None:
        self.life, actions = step(self.life, event)
        for action in actions:
            if action is Action.STOP:
                assert self.work, "nothing to stop"
                assert self.work is not Action.EJECT, "a drive half switched off"
                self.work = None
            elif action is Action.OPENED:
                assert self.mounted
                assert not self.opened
                self.opened = True
            elif action is Action.CLOSED:
                assert self.opened
                self.opened = False
            else:
                assert self.work is None, f"{action} while {self.work} runs"
                self.work = action

    def see(self) -> None:
        if self.life.state in IDLE:
            lost = not self.mapped.issubset(self.present)
        else:
            lost = bool(self.life.device) and self.life.device not in self.present
        self.do(Seen(tuple(self.present), lost, self.waits()))

    def waits(self) -> str:
        return "" if self.key else WAITS

    @rule()
    def plug(self) -> None:
        if len(self.present) < 2:
            self.plugs += 1
            self.present.append(f"/devices/x#{self.plugs}")
            self.see()

    @precondition(lambda self: self.present)
    @rule(which=st.integers(0, 1))
    def pull(self, which: int) -> None:
        self.present.pop(which % len(self.present))
        self.see()

    @precondition(lambda self: self.work is Action.EJECT)
    @rule()
    def go_off(self) -> None:
        """The kernel tells that it is gone before the port is without power."""
        if self.life.device in self.present:
            self.present.remove(self.life.device)
        self.see()

    @rule()
    def plug_or_pull_the_key(self) -> None:
        before = self.life.state
        self.key = not self.key
        self.see()
        if before is S.PRESENT and not self.key:
            assert self.life.state is S.PRESENT
        elif before is S.PRESENT and self.life.auto_open:
            assert self.life.state is S.UNLOCKING

    @rule(answer=st.booleans())
    def ask_open(self, answer: bool) -> None:
        self.do(OpenAsked(answer))

    @rule(eject=st.booleans())
    def ask_close(self, eject: bool) -> None:
        self.do(CloseAsked(eject))

    @rule()
    def cancel(self) -> None:
        self.do(Cancelled())

    @precondition(lambda self: self.mounted)
    @rule()
    def unmount_by_hand(self) -> None:
        self.mounted = False
        self.do(Missing())

    @precondition(lambda self: self.work is None)
    @rule()
    def restart(self) -> None:
        """The daemon dies and comes back: it knows nothing but what the kernel says."""
        device = self.life.device if self.life.device in self.present else ""
        self.life = Life(auto_open=self.life.auto_open)
        self.opened = False
        device = device or next(iter(self.mapped.intersection(self.present)), "")
        mapped = bool(self.mapped)
        self.do(Found(tuple(self.present), device, mapped, self.mounted, self.waits()))

    @precondition(lambda self: self.work)
    @rule(well=st.booleans(), half=st.booleans())
    def work_ends(self, well: bool, half: bool) -> None:
        """Whoever is in the way may keep a mapping, although nothing is mounted any more."""
        work, self.work = self.work, None
        if work is Action.UNLOCK and (well or half):
            self.mapped.add(self.life.device)
        if work is Action.MOUNT and (well or half):
            self.mounted = True
        if work in (Action.RETREAT, Action.PURGE) or (work is Action.UNMOUNT and well):
            self.mounted = False
        if work in (Action.UNMAP, Action.RETREAT) and well:
            self.mapped.difference_update(self.present)
        if work is Action.PURGE and well:
            self.mapped.intersection_update(self.present)
        self.do(Done() if well else Failed("why"))
        # Something always happens on a machine.
        self.see()

    @invariant()
    def work_is_known(self) -> None:
        assert self.life.work == self.work

    @invariant()
    def nothing_is_left_where_nothing_is_open(self) -> None:
        if self.life.state in (S.ABSENT, S.PRESENT, S.AMBIGUOUS, S.FAILED):
            assert (self.work, self.mounted, self.opened) == (None, False, False)
            assert self.mapped.issubset(self.present)

    @invariant()
    def open_means_open(self) -> None:
        if self.life.state is S.OPEN:
            assert self.opened
            assert self.mounted
            assert self.life.device in self.present

    @invariant()
    def a_pulled_drive_is_being_dealt_with(self) -> None:
        if self.life.device and self.life.device not in self.present:
            assert self.life.state in (S.LOST, S.CLOSING)

    @invariant()
    def from_anywhere_a_pull_ends_in_absent(self) -> None:
        life, _ = step(self.life, Seen((), lost=bool(self.life.device)))
        for _ in range(8):
            if life.work is None:
                break
            life, _ = step(life, Failed("even so"))
        assert life.state is S.ABSENT, life

    @invariant()
    def opening_has_one_drive(self) -> None:
        if self.life.state in OPENING:
            assert len(self.present) == 1


def test_world() -> None:
    limits = settings(max_examples=150, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(World, settings=limits)


def test_life_is_a_value() -> None:
    life = Life()
    assert replace(life, error="") == life
