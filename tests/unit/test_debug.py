"""What `immud debug` leaves out, whatever else it finds."""

import pytest

from immud.cli.debug import LIMIT, _said, scrub
from immud.lease import begin, journal, record


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("//nas/home /mnt cifs user=a,password=hunter2,ro 0 0", "user=a,password=[left out],ro"),
        ("systemd.set_credential=passwd.x:hunter2 quiet", "systemd.set_credential=[left out]"),
        ("root=UUID=1-2 api_token=hunter2", "root=UUID=1-2 api_token=[left out]"),
        ("PASSPHRASE=hunter2", "PASSPHRASE=[left out]"),
        ("//nas/home /mnt cifs user=a,pass=hunter2,ro 0 0", "user=a,pass=[left out],ro"),
    ],
)
def test_values_with_secret_names_are_left_out(text: str, left: str) -> None:
    assert left in scrub(text)
    assert "hunter2" not in scrub(text)


def test_the_rest_stays() -> None:
    text = 'key = "/etc/immud/keys/home"\nUUID=11-22 / ext4 errors=remount-ro 0 1\n'
    assert scrub(text) == text


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("uid", [0, 1000])
def test_what_a_lease_was_for_is_left_out(
    monkeypatch: pytest.MonkeyPatch, uid: int, *, trial: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(journal, "tell", lambda message, *_: told.append(message))
    command = ("sh", "-c", "echo root: hunter2 |\n  chpasswd\n\necho hunter2")
    begin._announce(record.Record("t1", who=uid, trial=trial, command=command, why="hunter2"))
    # As journalctl(1) shows the further lines of a message.
    start = "[    5.000000] immud[12]: "
    shown = start + told[0].replace("\n", "\n" + " " * len(start))
    left = scrub(f"{start}On the bus.\n{shown}\n{start}And so on.\n")
    assert "hunter2" not in left
    assert "chpasswd" not in left
    assert left.startswith(f"{start}On the bus.\n{start}A ")
    assert left.endswith(f": [left out]\n{start}And so on.\n")


async def test_what_is_newest_is_there_and_what_is_missing_is_said() -> None:
    long = f"yes | head -c {LIMIT - 10}; echo; echo newest"
    assert (await _said(("sh", "-c", long))).endswith("\nnewest\n")
    too_long = await _said(("sh", "-c", f"yes | head -c {LIMIT}; echo newest"))
    assert too_long.endswith("\n(cut off)\n")
    assert "newest" not in too_long
