"""`immud daemon`."""

from argparse import Namespace

from immud.cli.enable import require_root


def daemon(_: Namespace) -> int:
    """Become the daemon."""
    require_root("immud daemon")
    from immud.daemon import main  # noqa: PLC0415 - asyncio, D-Bus and all

    main()
    return 0
