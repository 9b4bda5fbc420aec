"""Devices as values, what came and went, and which of them a tomb means."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immud.model import TombConfig
from immud.tomb.drives.match import answers, candidates, names
from immud.watch.devices import (
    Device,
    DeviceEvent,
    Inventory,
    What,
    decoded,
    describe,
    mention,
    usable,
)

PROPERTIES = {
    "DEVNAME": "/dev/sdb1",
    "DEVTYPE": "partition",
    "MAJOR": "8",
    "MINOR": "17",
    "DISKSEQ": "13",
    "ID_BUS": "usb",
    "ID_FS_TYPE": "crypto_LUKS",
    "ID_FS_USAGE": "crypto",
    "ID_FS_UUID": "231a3245-7e31-48ce-8c20-7dbc886ac808",
    "ID_FS_LABEL": "my_tomb",
    "ID_FS_LABEL_ENC": "my\\x20tomb",
    "ID_PART_ENTRY_UUID": "aa-bb",
    "ID_SERIAL": "Stick_SER0",
    "ID_SERIAL_SHORT": "SER0",
}
PATH = "/devices/pci/usb/block/sdb/sdb1"
DEVICE = describe(PATH, PROPERTIES)


def test_described_as_udev_has_it() -> None:
    expected = Device(
        devpath=PATH,
        devnode="/dev/sdb1",
        number="8:17",
        diskseq="13",
        fs_type="crypto_LUKS",
        uuid="231a3245-7e31-48ce-8c20-7dbc886ac808",
        label="my tomb",
        partuuid="aa-bb",
        serial="Stick_SER0",
        serial_short="SER0",
        disk="/devices/pci/usb/block/sdb",
    )
    assert expected == DEVICE
    assert describe("/devices/x/sdb", {**PROPERTIES, "DEVTYPE": "disk"}).disk == "/devices/x/sdb"


def test_labels_are_decoded() -> None:
    assert decoded("K\\xc3\\xa4se \\x5cx") == "Käse \\x"
    assert decoded("plain") == "plain"


@pytest.mark.parametrize("text", ["\\x", "\\xzz", "a\\x4", "\\x00", "\\xff", "\udcff", "\\x+1"])
def test_no_label_is_a_defect(text: str) -> None:
    assert "\0" not in decoded(text)
    decoded(text).encode()


def test_what_is_there_and_usable() -> None:
    assert usable({}, initialized=True, sectors="2048\n")
    assert not usable({}, initialized=False, sectors="2048\n")
    assert not usable({"SYSTEMD_READY": "0"}, initialized=True, sectors="2048\n")
    assert usable({"SYSTEMD_READY": "1"}, initialized=True, sectors="2048\n")
    assert not usable({}, initialized=True, sectors="0\n"), "a reader without its card"
    assert not usable({}, initialized=True, sectors=""), "gone from sysfs"


def seq(number: str) -> Device:
    return describe(PATH, {**PROPERTIES, "DISKSEQ": number})


def test_seen_twice_is_told_once() -> None:
    inventory = Inventory()
    assert inventory.seen(DEVICE) == (DeviceEvent(What.ADDED, DEVICE),)
    assert inventory.seen(DEVICE) == ()
    changed = describe(PATH, {**PROPERTIES, "ID_FS_TYPE": ""})
    assert inventory.seen(changed) == (DeviceEvent(What.CHANGED, changed),)


def test_another_plug_at_the_same_place_ends_the_first() -> None:
    inventory = Inventory()
    inventory.seen(seq("1"))
    assert inventory.seen(seq("2")) == (
        DeviceEvent(What.REMOVED, seq("1")),
        DeviceEvent(What.ADDED, seq("2")),
    )
    assert inventory.removed(PATH, "1") == (), "late news of the first"
    assert inventory.removed(PATH, "2") == (DeviceEvent(What.REMOVED, seq("2")),)
    assert inventory.removed(PATH) == ()


def test_a_drive_whose_server_is_gone_is_new_when_it_is_back() -> None:
    inventory = Inventory()
    inventory.seen(DEVICE)
    other = replace(DEVICE, devpath="/devices/x/sdc1", disk="/devices/x/sdc")
    inventory.seen(other)
    assert inventory.ended(DEVICE.disk) == (DeviceEvent(What.REMOVED, DEVICE),)
    assert inventory.devices == (other,)
    assert inventory.seen(DEVICE) == (DeviceEvent(What.ADDED, DEVICE),)


PATHS = st.sampled_from(["/a", "/b", "/c"])
SEQS = st.sampled_from(["1", "2", ""])


@given(st.lists(st.tuples(st.sampled_from(["seen", "removed", "only"]), PATHS, SEQS)))
def test_the_events_add_up_to_the_inventory(news: list[tuple[str, str, str]]) -> None:
    inventory, told = Inventory(), {}
    for kind, path, number in news:
        if kind == "seen":
            events = inventory.seen(Device(path, "/dev/x", "8:0", number))
        else:
            one = kind == "removed"
            events = inventory.removed(path, number) if one else inventory.only([path])
        for event in events:
            if event.what is What.REMOVED:
                assert told.pop(event.device.devpath) == event.device
            else:
                assert (event.what is What.ADDED) == (event.device.devpath not in told)
                told[event.device.devpath] = event.device
    assert told == {device.devpath: device for device in inventory.devices}


def test_every_given_key_has_to_match() -> None:
    uuid = "231A3245-7e31-48ce-8c20-7dbc886ac808"
    assert answers(TombConfig("home", uuid=uuid), DEVICE)
    assert answers(TombConfig("home", label="my tomb", partuuid="AA-BB", serial="SER0"), DEVICE)
    assert answers(TombConfig("home", serial="Stick_SER0"), DEVICE)
    assert not answers(TombConfig("home", uuid=uuid, label="other"), DEVICE)
    assert not answers(TombConfig("home", label="MY TOMB"), DEVICE)
    assert not answers(TombConfig("home"), DEVICE), "nothing given means nothing, not everything"


def test_only_luks_volumes_answer() -> None:
    plain = describe(PATH, {**PROPERTIES, "ID_FS_TYPE": "ext4"})
    assert not answers(TombConfig("home", serial="SER0"), plain)


def test_a_plain_drive_is_a_tomb_only_where_its_own_uuid_is_said_to_be() -> None:
    plain = replace(DEVICE, fs_type="ext4")
    config = TombConfig("home", uuid=DEVICE.uuid, encrypted=False)
    assert answers(config, plain)
    assert not answers(config, DEVICE), "it is encrypted, and was said not to be"
    assert not answers(config, replace(plain, fs_type="vfat")), "it has no owners"
    assert not answers(config, replace(plain, uuid="other"))
    assert not answers(replace(config, encrypted=True), plain)


def test_a_twin_is_a_second_candidate() -> None:
    twin = describe("/devices/other", {**PROPERTIES, "DISKSEQ": "14"})
    config = TombConfig("home", label="my tomb")
    assert candidates(config, (DEVICE, twin)) == candidates(config, (twin, DEVICE))
    assert len(candidates(config, (DEVICE, twin))) == 2


def encoded(text: str) -> str:
    """A label as udev has it in a property that ends in _ENC."""
    plain = "#+-.:=@_"
    return "".join(
        c if c.isalnum() or c in plain else "".join(f"\\x{byte:02x}" for byte in c.encode())
        for c in text
    )


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1))
@example("My Tomb")
@example("\N{KELVIN SIGN}\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}")
def test_what_has_a_name_is_never_overlooked(name: str) -> None:
    config = TombConfig("home", label=name, mount="/var/home", absent="directory")
    wanted = names([config])
    event = f"libudev\0DEVPATH={PATH}\0ID_FS_LABEL_ENC={encoded(name)}\0MAJOR=8\0".encode()
    assert mention(wanted).search(event.lower())
    device = describe(PATH, {**PROPERTIES, "ID_FS_LABEL_ENC": encoded(name)})
    assert answers(config, device)
    assert not device.names.isdisjoint(name.lower() for name in wanted)


def test_an_event_that_has_no_such_name_is_no_mention() -> None:
    event = b"ID_FS_UUID=5F0E-4A0A\0ID_FS_LABEL_ENC=my\\x20tomb\0".lower()
    assert mention(["5f0e-4a0a"]).search(event)
    assert mention(["my tomb"]).search(event)
    assert not mention(["5f0e"]).search(event)
    assert not mention(["tomb"]).search(event)
    assert not mention(()).search(event)


def test_all_by_which_a_drive_and_that_with_its_key_are_known() -> None:
    config = TombConfig(
        "home",
        uuid="A",
        label="B",
        partuuid="C",
        serial="D",
        key="PARTLABEL=keys:/home",
        mount="/var/home",
        absent="directory",
    )
    assert names([config]) == {"A", "B", "C", "D", "keys"}
