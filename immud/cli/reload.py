"""After the configuration has changed: the plan of the next boot, and the daemon that runs."""

import sys
from typing import TYPE_CHECKING

from immud.cli.bus import talk
from immud.config.compile import recompile
from immud.errors import ImmudError, Unreachable

if TYPE_CHECKING:
    from immud.client import Client


def reload() -> bool:
    """Have both follow. Whether there is a daemon that does; one that refuses is told of."""
    recompile()
    try:
        talk(_reload)
    except Unreachable:
        return False
    except ImmudError as error:
        print(f"the daemon refused the new configuration: {error}", file=sys.stderr)
        return False
    return True


async def _reload(client: "Client") -> None:
    await client.wait(await client.reload())
