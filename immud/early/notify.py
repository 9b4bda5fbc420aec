"""sd_notify(3) without a library: phase 1 may not import one, phase 2 needs no second one."""

import _socket
import os


def notify(**variables: str | int) -> bool:
    """Send assignments such as READY=1 or STATUS=... to the service manager.

    Returns whether there was a manager to tell; a manager that cannot be reached
    or does not read is no reason to fail, so nothing is raised and nothing blocks.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    # Each is one line, whatever is in it: the name of somebody's process may be "\nSTOPPING=1".
    lines = (f"{name}={value}".replace("\n", " ") for name, value in variables.items())
    data = "\n".join(lines).encode(errors="backslashreplace")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(address)
        sock.send(data, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def ready(status: str) -> bool:
    """The unit is started, and this is what `systemctl status` shows of it."""
    return notify(READY=1, STATUS=status, MAINPID=os.getpid())


def status(text: str) -> bool:
    """The STATUS line of `systemctl status`."""
    return notify(STATUS=text)


def stopping(text: str) -> bool:
    return notify(STOPPING=1, STATUS=text)


def more_time(seconds: float) -> bool:
    """Whatever the unit's limit: this long from now on, unless it is said again."""
    return notify(EXTEND_TIMEOUT_USEC=int(seconds * 1_000_000))


def watchdog() -> bool:
    return notify(WATCHDOG=1)


def watchdog_interval() -> float:
    """Seconds between two `watchdog` calls: half of the limit. 0.0 where none is set.

    The variable names the process it is meant for (sd_watchdog_enabled(3)), which
    after `execv` is still this one.
    """
    pid = os.environ.get("WATCHDOG_PID", "")
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit) / 2_000_000
