"""A TPM 2.0 in software, for a machine of QEMU's: swtpm(8)."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.container import die_with_parent
from tests.support.process import PATH


@contextlib.contextmanager
def tpm(place: Path) -> Iterator[tuple[str, ...]]:
    """QEMU's options for a new TPM, which is kept in the directory `place`; gone with the block."""
    control = place / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(control))
        listening.listen(1)
        swtpm = ("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={place}")
        process = subprocess.Popen(
            # It ends with the machine, which may be turned on again.
            [
                *("sh", "-c", 'while "$@"; do :; done', "sh", *swtpm),
                *("--ctrl", f"type=unixio,fd={listening.fileno()}"),
            ],
            pass_fds=(listening.fileno(),),
            env={"PATH": PATH},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 no threads here
        )
    try:
        yield (
            *("-chardev", f"socket,id=tpm,path={control}"),
            *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"),
        )
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
