"""Making tombs and looking after them: create, enrol, forget, and what is done to a LUKS header.

    observe -> refuse (pure) -> plan (pure) -> execute        a drive to a tomb

All of it is done by root directly, with or without a daemon. The drive is locked the way
https://systemd.io/BLOCK_DEVICE_LOCKING says, so that udev, and with it the daemon and the desktop,
looks at it only when it is finished.
"""
