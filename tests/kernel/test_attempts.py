"""Boots that do not come to their end are counted, and the third is made without the layout."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from immud.early import attempts, facts, kernel, main, notify, plan
from immud.early.plan import BootPlan
from tests.support.namespaces import enter_root, namespaced
from tests.support.phase1 import SILVERBLUE, refuses
from tests.support.stock import mount_image, stock_image

Check = Callable[[facts.Facts], None]
SCRIPT = (Path(__file__).parents[2] / "units/boot-count").read_text()


class Disk:
    """A disk that is booted again and again, each time in a namespace of its own."""

    def __init__(self, image: Path, where: Path) -> None:
        self.image, self.where = image, where
        self.words: tuple[str, ...] = ()
        self.plan: BootPlan | None = BootPlan(rows=SILVERBLUE)

    def boot(self, check: Check = lambda made: None, prepare: Callable[[], None] = str) -> None:
        def work() -> None:
            mount_image(self.image, self.where)
            kernel.mount("tmpfs", str(self.where / "run"), "tmpfs", 0, "mode=755")
            enter_root(str(self.where))
            if self.plan:
                Path(plan.PATH).write_bytes(plan.encode(self.plan))
            prepare()
            phase1(self.words)
            made = facts.read()
            assert made
            check(made)

        namespaced(work)

    def end(self, how: str, number: int = 0) -> None:
        """The script runs, here beside the disk that was booted with `number` counted before."""

        def work() -> None:
            mount_image(self.image, self.where)
            kernel.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755")
            Path("/mnt/counted").write_text(str(number))
            script = SCRIPT.replace("/etc/immud", f"{self.where}/etc/immud")
            script = script.replace("/run/immud", "/mnt")
            script = script.replace("systemctl is-system-running", "echo stopping")
            subprocess.run(("/bin/sh", "-c", script, "sh", how), check=True)

        namespaced(work)


def phase1(words: tuple[str, ...] = ()) -> None:
    class Booted(BaseException):
        pass

    def become(*_arguments: object) -> None:
        raise Booted

    os.execv = become  # type: ignore[assignment] # in a process of this test's own
    notify.ready = lambda _status: True
    main.command_line = lambda: frozenset(words)
    with pytest.raises(Booted):
        main.boot()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    image = stock_image(tmp_path, size="16M")
    return Disk(image, tmp_path / "root")


def codes(made: facts.Facts) -> list[str]:
    return [problem[1] for problem in made.problems]


def whole(made: facts.Facts) -> None:
    assert made.layout == "done", made.problems
    assert refuses("/usr/x")
    assert refuses("/x")


def plain(made: facts.Facts) -> None:
    assert (made.layout, codes(made)) == ("skipped", ["boots-failed"])
    assert not refuses("/usr/x")
    assert not refuses("/x")


def test_two_that_fail_make_the_third_a_plain_one(disk: Disk) -> None:
    disk.boot(whole)
    disk.boot(whole)
    disk.boot(plain)
    disk.end("complete")
    disk.boot(whole)


def test_after_a_plain_one_the_next_tries_again_whatever_became_of_it(disk: Disk) -> None:
    disk.boot(whole)
    disk.boot(whole)
    for _ in range(2):
        disk.boot(plain)
        disk.boot(whole)
    disk.boot(plain)
    disk.end("stopped", 2)
    disk.boot(whole)
    disk.end("complete")
    for _ in range(2):
        disk.boot(whole)


@pytest.mark.parametrize("source", ["/var", "/data/var"])
def test_what_is_held_back_starts_in_a_plain_one_where_its_var_is_meant(
    disk: Disk, source: str
) -> None:
    def check(made: facts.Facts) -> None:
        plain(made)
        assert os.path.exists(facts.SOURCES_OK) == (source == "/var")

    def prepare() -> None:
        Path(plan.PATH).write_bytes(plan.encode(BootPlan(var=source, rows=SILVERBLUE)))

    for _ in range(2):
        disk.boot(whole)
    disk.boot(check, prepare)


def test_one_that_comes_to_its_end_is_a_new_start(disk: Disk) -> None:
    for _ in range(2):
        disk.boot(whole)
        disk.boot(whole)
        disk.end("complete")
    disk.boot(whole)


def test_a_restart_within_a_boot_is_not_another_boot(disk: Disk) -> None:
    def again(_made: facts.Facts) -> None:
        for _ in range(3):
            os.unlink(facts.PATH)  # as if it had been killed before its end
            phase1()
        made = facts.read()
        assert made
        whole(made)
        assert attempts.read() == 2

    disk.boot(whole)
    disk.boot(again)


def test_a_shutdown_in_good_order_does_not_count(disk: Disk) -> None:
    disk.boot(whole)
    for _ in range(3):
        disk.boot(whole)
        disk.end("stopped", 1)
    disk.boot(whole)
    disk.end("complete")
    disk.end("stopped", 1)
    disk.boot(whole)
    disk.boot(whole)


def test_neither_does_rescue_mode(disk: Disk) -> None:
    disk.words = ("quiet", "systemd.unit=rescue.target")
    for _ in range(3):
        disk.boot(whole)


def test_nor_does_it_take_the_next_try_away(disk: Disk) -> None:
    disk.boot(whole)
    disk.boot(whole)
    disk.words = ("single",)
    disk.boot(plain)
    disk.words = ()
    disk.boot(whole)
    disk.boot(plain)


@pytest.mark.parametrize("text", ["", "Boots", "\0", "Boots in a row 7", "\N{SNOWMAN}"], ids=repr)
def test_a_torn_count_is_no_count(disk: Disk, text: str) -> None:
    disk.boot(whole, lambda: Path(attempts.PATH).write_text(text) and None)


def test_with_no_place_for_the_count_only_usr_is_protected(disk: Disk) -> None:
    def check(made: facts.Facts) -> None:
        assert "attempts-unwritable" in codes(made)
        assert refuses("/usr/x")
        assert not refuses("/x")

    disk.boot(check, lambda: os.mkdir(attempts.PATH))


def test_a_full_disk_has_room_for_it(disk: Disk) -> None:
    def fill() -> None:
        attempts.write(0)  # as immud enable leaves it
        with open("/var/full", "wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        assert os.statvfs("/var").f_bavail == 0

    disk.boot(whole, fill)
