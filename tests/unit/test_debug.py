"""What `immud debug` leaves out, whatever else it finds."""

import pytest

from immud.cli.debug import scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("//nas/home /mnt cifs user=a,password=hunter2,ro 0 0", "user=a,password=[left out],ro"),
        ("systemd.set_credential=passwd.x:hunter2 quiet", "systemd.set_credential=[left out]"),
        ("root=UUID=1-2 api_token=hunter2", "root=UUID=1-2 api_token=[left out]"),
        ("PASSPHRASE=hunter2", "PASSPHRASE=[left out]"),
    ],
)
def test_values_with_secret_names_are_left_out(text: str, left: str) -> None:
    assert left in scrub(text)
    assert "hunter2" not in scrub(text)


def test_the_rest_stays() -> None:
    text = 'key = "/etc/immud/keys/home"\nUUID=11-22 / ext4 errors=remount-ro 0 1\n'
    assert scrub(text) == text
