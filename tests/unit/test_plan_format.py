"""The boot plan's file: whatever is written is read back, and nothing torn is ever believed."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.early.plan import BootPlan, PlanError, Row, decode, encode, escape, unescape

# What a path or label may contain: anything, bytes that are not UTF-8 included.
TEXT = st.text(
    st.characters(blacklist_categories=("Cs",)) | st.sampled_from("\t\n\\\x00\x7f\udc80\udcff"),
    max_size=12,
)
ROWS = st.builds(
    Row,
    TEXT,
    TEXT,
    st.sampled_from(("link", "bind")),
    st.integers(0, 0o7777),
    st.lists(TEXT, max_size=3).map(tuple),
)
PLANS = st.builds(
    BootPlan,
    usr=TEXT,
    etc=TEXT,
    var=TEXT,
    rows=st.lists(ROWS, max_size=3).map(tuple),
    root=st.booleans(),
    wait=st.integers(0, 600),
    logins=st.booleans(),
    tombs=st.lists(TEXT, max_size=2).map(tuple),
    configs=st.lists(st.tuples(TEXT, st.binary(max_size=40)), max_size=2).map(tuple),
)


def closed(body: str) -> bytes:
    """The lines of a plan with the closing line that makes them a whole one."""
    data = body.encode()
    return data + f"end\t{body.count(chr(10))}\t{crc32(data)}\n".encode()


@given(PLANS)
def test_any_plan_is_read_back_as_it_was(plan: BootPlan) -> None:
    assert decode(encode(plan)) == plan


@given(PLANS, st.data())
def test_a_plan_cut_short_anywhere_is_refused(plan: BootPlan, data: st.DataObject) -> None:
    whole = encode(plan)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PlanError):
        decode(whole[:cut])


@given(PLANS, st.data())
def test_a_plan_with_one_byte_changed_is_refused(plan: BootPlan, data: st.DataObject) -> None:
    whole = bytearray(encode(plan))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PlanError):
        decode(bytes(whole))


@given(PLANS, PLANS)
def test_two_plans_in_one_file_are_refused(one: BootPlan, two: BootPlan) -> None:
    with pytest.raises(PlanError):
        decode(encode(one) + encode(two))


@given(st.binary(max_size=80))
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with pytest.raises(PlanError):
        decode(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("immud-plan\t1\n", "immud-plan\t2\n"),
        ("wait\t10\n", "wait\t10\nverity\tsha256\n"),
        ("\tlink\t", "\toverlay\t"),
    ],
    ids=["version", "record", "kind"],
)
def test_what_another_version_wrote_is_refused_and_not_left_out(old: str, new: str) -> None:
    body = encode(BootPlan(rows=(Row("/srv", "var/srv"),))).rpartition(b"end\t")[0].decode()
    assert old in body
    with pytest.raises(PlanError, match="written by another version"):
        decode(closed(body.replace(old, new)))


@pytest.mark.parametrize(
    "line", ["row", "row\t/srv\tvar/srv\tlink", "hold", "tomb", "config\t/x", "wait\t"]
)
def test_a_record_without_its_fields_is_refused(line: str) -> None:
    body = encode(BootPlan()).rpartition(b"end\t")[0].decode()
    with pytest.raises(PlanError):
        decode(closed(f"{body}{line}\n"))


@given(TEXT)
def test_escapes_leave_nothing_that_separates(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("\t\n\r\x0b\x0c\x1c\x1d\x1e\x00")
    assert unescape(escaped) == text
