"""`immud tomb` and what comes after it: making tombs and looking after them."""

from immud.cli.command import DRY_RUN, JSON, Argument, Command

NAME: Argument = (
    ("name",),
    {"metavar": "NAME", "nargs": "?", "default": "home", "help": "the tomb; default: home"},
)
# What is not taken back is never done to a tomb somebody did not name.
THIS_NAME: Argument = (("name",), {"metavar": "NAME", "help": "the tomb"})
DEVICE: Argument = (
    ("device",),
    {"metavar": "DEVICE", "help": "the drive or partition, such as /dev/sdb"},
)
CALLED: Argument = (
    ("--name",),
    {"metavar": "NAME", "default": "home", "help": "what to call the tomb; default: home"},
)
MOUNT: Argument = (
    ("--mount",),
    {
        "metavar": "DIR",
        "default": "/var/home",
        "help": "where it is mounted when it is open; default: /var/home",
    },
)
PASSPHRASE_FD: Argument = (
    ("--passphrase-fd",),
    {
        "metavar": "N",
        "type": int,
        "help": "read the passphrase from file descriptor N instead of asking for it",
    },
)
KEY_FILE: Argument = (
    ("--key-file",),
    {"metavar": "FILE", "help": "use the key in FILE instead of a passphrase"},
)
DERIVATION: tuple[Argument, ...] = (
    (
        ("--iter-time",),
        {
            "metavar": "MS",
            "type": int,
            "help": "milliseconds that trying a passphrase takes, as in cryptsetup(8)",
        },
    ),
    (
        ("--pbkdf-memory",),
        {
            "metavar": "KIB",
            "type": int,
            "help": "memory that trying a passphrase takes, as in cryptsetup(8); for machines "
            "with less of it than this one",
        },
    ),
)

CREATE = Command(
    "create",
    "make a drive a tomb: encrypted, with a file system, and enrolled",
    "Makes a new encrypted volume (LUKS2) with a file system on a drive, and enrols it. Refuses a "
    "drive that is in use, holds any part of the running system, or is not empty, and has you type "
    "its name. Run it again if it was interrupted: a half-made tomb counts as empty, and copying "
    "is resumed. What is copied is compared with the originals byte by byte, and they stay until "
    "you remove them. In scripts, --yes-i-mean and --passphrase-fd or --key-file stand for what "
    "is typed.",
    "create",
    "create",
    (
        DEVICE,
        CALLED,
        (
            ("--fs",),
            {
                "choices": ("ext4", "btrfs", "xfs"),
                "default": "ext4",
                "metavar": "TYPE",
                "help": "the file system: ext4 (the default), btrfs or xfs",
            },
        ),
        (
            ("--label",),
            {"metavar": "LABEL", "default": "", "help": "the volume's label; default: its name"},
        ),
        (
            ("--from",),
            {
                "metavar": "DIR",
                "default": "",
                "dest": "source",
                "help": "copy what is in DIR to it, such as /var/home; DIR stays as it is",
            },
        ),
        MOUNT,
        KEY_FILE,
        PASSPHRASE_FD,
        *DERIVATION,
        (
            ("--partition",),
            {"action": "store_true", "help": "make a partition table and one partition first"},
        ),
        (
            ("--overwrite",),
            {"action": "store_true", "help": "erase everything that is on the drive"},
        ),
        (
            ("--yes-i-mean",),
            {"metavar": "DEVICE", "default": "", "help": "the device once more, for scripts"},
        ),
        (
            ("--no-enrol",),
            {"action": "store_true", "help": "make it, and leave the configuration alone"},
        ),
        DRY_RUN,
        JSON,
    ),
)
ENROL = Command(
    "enrol",
    "make an existing encrypted volume a tomb of this machine",
    "Adds an existing LUKS volume, made here or elsewhere, to the configuration of this machine, "
    "so that it is opened when it is plugged in. Writes nothing to the drive.",
    "enrol",
    "enrol",
    (
        DEVICE,
        CALLED,
        MOUNT,
        (
            ("--key-file",),
            {"metavar": "FILE", "default": "", "help": "open it with FILE, and never ask"},
        ),
    ),
)
LIST = Command(
    "list",
    "show the tombs of this machine",
    "Shows the configured tombs: their state, where they are mounted, and their drives.",
    "enrol",
    "list_",
    (JSON,),
)
FORGET = Command(
    "forget",
    "undo enrol; the drive stays as it is",
    "Removes what enrolling wrote on this machine. The drive and what is on it stay as they are.",
    "enrol",
    "forget",
    (THIS_NAME,),
)

PASSWD = Command(
    "passwd",
    "change a passphrase or key of a tomb",
    "Replaces a passphrase or key of the volume, which may be open or closed. The pin, and the "
    "volume's other keys, stay as they are.",
    "header",
    "passwd",
    (
        NAME,
        KEY_FILE,
        PASSPHRASE_FD,
        (
            ("--new-key-file",),
            {"metavar": "FILE", "help": "the new key is in FILE, instead of a passphrase"},
        ),
        (
            ("--new-passphrase-fd",),
            {
                "metavar": "N",
                "type": int,
                "help": "read the new passphrase from file descriptor N instead of asking for it",
            },
        ),
        *DERIVATION,
    ),
)
RECOVERY_KEY = Command(
    "recovery-key",
    "add a recovery key, and print it",
    "Has systemd-cryptenroll(1) add a recovery key to the volume, and prints it once.",
    "header",
    "recovery_key",
    (NAME, KEY_FILE, PASSPHRASE_FD),
)
HEADER_BACKUP = Command(
    "header-backup",
    "write the LUKS header of a tomb to a file",
    "Writes the header of the volume, without which nothing on it can be read, to a new file on "
    "another drive.",
    "header",
    "header_backup",
    (THIS_NAME, (("file",), {"metavar": "FILE", "help": "the new file"})),
)
RESIZE = Command(
    "resize",
    "make an open tomb as large as its partition or drive has become",
    "Makes an open tomb as large as its partition or drive, after that has become larger.",
    "header",
    "resize",
    (NAME, KEY_FILE, PASSPHRASE_FD),
)

TOMB = Command(
    "tomb",
    "make tombs, and look after them",
    "Makes tombs and looks after them. Without a command: shows those of this machine.",
    "enrol",
    "list_",
    (),
    (CREATE, ENROL, LIST, FORGET, PASSWD, RECOVERY_KEY, HEADER_BACKUP, RESIZE),
)
