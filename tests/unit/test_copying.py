"""What rsync(1) says in the end: whether a copy is whole but for what went meanwhile."""

import asyncio

import pytest

from immud.make.copying import _performed
from immud.run import CommandFailed

# As rsync 3.5 ended on a directory whose files come and go.
WENT = """\
file has vanished: "/etc/busy/225"
rsync: [sender] get_acl: sys_acl_get_file(busy/240, ACL_TYPE_ACCESS): No such file or directory (2)
rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)\
 [sender=3.5.0]
"""
DENIED = 'rsync: [sender] send_files failed to open "/etc/x": Permission denied (13)\n'
NO_PLACE = 'rsync: [generator] recv_generator: mkdir "/x" failed: No such file or directory (2)\n'
NO_SOURCE = 'rsync: [sender] change_dir "/etc" failed: No such file or directory (2)\n'


def ended(code: int, said: str) -> int:
    done = asyncio.run(
        _performed("/bin/sh", "-c", 'printf %s "$1" >&2; exit "$2"', "", said, str(code))
    )
    return done.code


@pytest.mark.parametrize(("code", "said"), [(0, ""), (24, DENIED), (23, WENT)])
def test_what_went_meanwhile_is_no_failure(code: int, said: str) -> None:
    assert ended(code, said) == code


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (23, WENT + DENIED),
        (23, WENT + NO_PLACE),
        (23, NO_SOURCE),
        (11, WENT),
        (23, WENT + "rsync: [s"),
    ],
)
def test_anything_else_is_one(code: int, said: str) -> None:
    with pytest.raises(CommandFailed):
        ended(code, said)
