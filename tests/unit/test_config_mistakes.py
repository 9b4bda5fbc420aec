"""Mistakes in the configuration: each is named with file, line and key, and what would be right."""

from pathlib import Path

import pytest

from immud.config.load import dotted, examine, load
from immud.errors import ConfigError
from tests.unit.test_config import UUID, write

QUOTE = '"'


KEY = (
    '"ask", the absolute path of a key file, "drive:" and a path on the drive the tomb\'s file is '
    'on, or "UUID=", "LABEL=", "PARTUUID=" or "PARTLABEL=" of another drive with ":/path" after it'
)
FILE = (
    'a path on the drive such as "tombs/secret.tomb", with no slash first or last and no '
    '"." or ".."'
)
TOMB = f'[tomb.home]\nuuid = "{UUID}"\n'
WANTED_SOURCE = (
    'an absolute path, or "LABEL=", "UUID=", "PARTLABEL=" or "PARTUUID=" with the name of '
    'a file system and, if need be, ":/sub/path"'
)

BAD = {
    # Not TOML at all
    "[usr\n": "1: not valid TOML: Expected ']' at the end of a table declaration",
    "[boot]\nwait = 1\nwait = 2\n": "3: not valid TOML: Cannot overwrite a value",
    "[boot]\nwait =": "2: not valid TOML: Invalid value",
    b"[boot]\n# caf\xe9\n": "2: byte 0xe9 is not UTF-8; save the file as UTF-8",
    "\ufeff[boot]\n": (
        "1: a byte order mark comes before the text; save the file as UTF-8 without one"
    ),
    # Unknown names
    "\n[bot]\nwait = 1\n": '2: bot: unknown table; did you mean "boot"?',
    "[boot]\nwiat = 1\n": '2: boot.wiat: unknown key; did you mean "wait"?',
    "[boot]\nxyz = 1\n": "2: boot.xyz: unknown key; known are wait, hold_back",
    "tomb.home.uid = 1\n": '1: tomb.home.uid: unknown key; did you mean "uuid"?',
    '[links]\n"/home" = { taget = "x" }\n': (
        '2: links."/home".taget: unknown key; did you mean "target"?'
    ),
    # Wrong types
    "boot = 3\n": "1: boot: is an integer; it has to be a table: write [boot]",
    "[[boot]]\nwait = 3\n": "1: boot: is an array; it has to be a table: write [boot]",
    "[boot]\nwait = 1.5\n": (
        "2: boot.wait: is a float; it has to be a whole number of seconds from 0 to 600"
    ),
    "[boot]\nhold_back = 'db.service'\n": (
        "2: boot.hold_back: is a string; "
        'it has to be an array of names of units such as ["postgresql.service"]'
    ),
    "[boot]\nhold_back = ['db']\n": (
        '2: boot.hold_back: has "db" in it; '
        'it has to be an array of names of units such as ["postgresql.service"]'
    ),
    "[boot]\nhold_back = ['immud.service']\n": (
        '2: boot.hold_back: has "immud.service" in it, which must always start'
    ),
    "[boot]\nwait = true\n": (
        "2: boot.wait: is a boolean; it has to be a whole number of seconds from 0 to 600"
    ),
    "[boot]\nwait = 601\n": (
        "2: boot.wait: is 601; it has to be a whole number of seconds from 0 to 600"
    ),
    "[root]\nreadonly = 'yes'\n": "2: root.readonly: is a string; it has to be true or false",
    "[log]\nlevel = 'loud'\n": (
        '2: log.level: is "loud"; it has to be one of "err", "warning", "notice", "info", "debug"'
    ),
    "[layout]\ntable = 2020-01-01\n": (
        '2: layout.table: is a date or time; it has to be one of "silverblue", "none", as a string'
    ),
    # Sources
    "[usr]\nsource = ''\n": f'2: usr.source: is ""; it has to be {WANTED_SOURCE}',
    "[usr]\nsource = 'x'\n": f'2: usr.source: is "x"; it has to be {WANTED_SOURCE}',
    "[usr]\nsource = 'LABEL='\n": f'2: usr.source: is "LABEL="; it has to be {WANTED_SOURCE}',
    "[usr]\nsource = 'LABEL=a:b'\n": f'2: usr.source: is "LABEL=a:b"; it has to be {WANTED_SOURCE}',
    "[usr]\nsource = 'LABEL=a:/b/'\n": '2: usr.source: is "/b/"; write it as "/b"',
    "[usr]\nsource = '/a//b'\n": '2: usr.source: is "/a//b"; write it as "/a/b"',
    "[usr]\nsource = '//a'\n": '2: usr.source: is "//a"; write it as "/a"',
    "[usr]\nsource = '/a/../b'\n": (
        f'2: usr.source: is "/a/../b", with ".." in it; it has to be {WANTED_SOURCE}'
    ),
    "[usr]\nsource = '/'\n": (
        f'2: usr.source: is "/", the tree it would be part of; it has to be {WANTED_SOURCE}'
    ),
    "[usr]\nsource = '/dev/sda2'\n": (
        f'2: usr.source: is "/dev/sda2", inside /dev; it has to be {WANTED_SOURCE}'
    ),
    '[usr]\nsource = "/a\\tb"\n': (
        "2: usr.source: contains a control character: '/a\\tb'; it has to be " + WANTED_SOURCE
    ),
    "[etc]\nsource = '/etc/x'\n": (
        '2: etc.source: is "/etc/x", inside /etc, which something else is put over; '
        "it has to be elsewhere"
    ),
    "[var]\nsource = '/p/var'\n[etc]\nsource = '/var/etc'\n": (
        '4: etc.source: is "/var/etc", inside /var, which something else is put over; '
        "it has to be elsewhere"
    ),
    "[etc]\nsource = '/home/etc'\n": (
        '2: etc.source: is "/home/etc", behind the link at /home; write "/var/home/etc"'
    ),
    "[etc]\nsource = '/p'\n[var]\nsource = '/p/var'\n": (
        '4: var.source: is "/p/var", and etc.source is "/p": one inside the other; '
        "give each its own"
    ),
    "[etc]\nsource = 'LABEL=a'\n[var]\nsource = 'LABEL=a:/var'\n": (
        '4: var.source: is "LABEL=a:/var", and etc.source is "LABEL=a": one inside the other; '
        "give each its own"
    ),
    # Rows
    "[links]\nhome = 'var/home'\n": (
        '2: links.home: is "home", which is not absolute; '
        'it has to be an absolute path such as "/home"'
    ),
    '[links]\n"/home" = true\n': (
        '2: links."/home": is true; it has to be a target, a table of target, kind and mode, '
        "or false to drop it"
    ),
    '[links]\n"/home/" = "var/home"\n': '2: links."/home/": is "/home/"; write it as "/home"',
    '[links]\n"/home" = "/srv/home"\n': (
        '2: links."/home": leads to "/srv/home"; it has to lead to a directory below /var'
    ),
    '[links]\n"/home" = "/var"\n': (
        '2: links."/home": leads to "/var"; it has to lead to a directory below /var'
    ),
    '[links]\n"/home" = "/var/lib"\n': (
        '2: links."/home": leads to /var/lib, which belongs to the system; '
        "choose another below /var"
    ),
    '[links]\n"/home" = "run/media"\n': (
        '2: links."/home": leads to "/run/media"; it has to lead to a directory below /var'
    ),
    '[links]\n"/home" = "var/../etc"\n': '2: links."/home": is "var/../etc"; write it as "etc"',
    '[links]\n"/home" = "../var/home"\n': (
        '2: links."/home": is "../var/home", which leads out of /; '
        'it has to be a directory below /var, such as "/var/home"'
    ),
    '[links."/data"]\nkind = "bind"\n': (
        '1: links."/data": has no target; give it one, such as target = "/var/data"'
    ),
    '[links."/data"]\ntarget = "/var/data"\nkind = "symlink"\n': (
        '3: links."/data".kind: is "symlink"; it has to be one of "link", "bind"'
    ),
    '[links]\n"/data" = "/var/home/data"\n': (
        '2: links."/data": leads to /var/home/data, and /home to /var/home; '
        "give each a directory of its own"
    ),
    '[links]\n"/home/x" = "/var/x"\n': (
        '2: links."/home/x": and /home are one inside the other; drop one of them'
    ),
    **{
        f'[links]\n"{path}" = "/var/x"\n': (
            f"2: {dotted(('links', path))}: is part of the system and cannot be a link or a bind; "
            "drop this row"
        )
        for path in (
            *("/", "/usr", "/etc", "/var", "/proc", "/sys", "/dev", "/run", "/boot"),
            *("/usr/bin", "/usr/lib/x", "/var/home", "/etc/x", "/bin"),
        )
    },
    **{
        f'[links]\n"/home".mode = {mode}\n': f'2: links."/home".mode: {text}'
        for mode, text in {
            "755": 'is an integer; it has to be octal digits such as "0755" or "1777", as a string',
            '"0788"': 'is "0788"; it has to be octal digits such as "0755" or "1777"',
            '"75"': 'is "75"; it has to be octal digits such as "0755" or "1777"',
            '"4755"': 'is "4755"; it has to be octal digits such as "0755" or "1777"',
            '"0077"': (
                'is "0077", which locks the owner out; '
                'it has to be octal digits such as "0755" or "1777"'
            ),
        }.items()
    },
    # Tombs
    "tomb = 'x'\n": "1: tomb: is a string; it has to be a table: write [tomb]",
    f"[tomb]\nuuid = '{UUID}'\n": (
        "2: tomb.uuid: is a string; tombs have names: write [tomb.home], and keys below it"
    ),
    **{
        f"[tomb.{name}]\nlabel = 'x'\n": (
            f"1: {dotted(('tomb', name.strip(QUOTE)))}: is not a name for a tomb; "
            "use at most 31 letters, digits, underscores and hyphens, with no hyphen first"
        )
        for name in ('"a/b"', '"a.b"', '"é"', '"-a"', '""', "a" * 32)
    },
    "[tomb.home]\nmount = '/var/home'\n": (
        "1: tomb.home: nothing says which volume it is; give it uuid, label, partuuid or serial"
    ),
    "[tomb.home]\nuuid = 'x'\n": (
        '2: tomb.home.uuid: is "x"; it has to be a UUID such as '
        '"7d5bd4b3-6f7c-4c1c-9a40-0c6b0bd4bb5b" (see blkid(8))'
    ),
    "[tomb.home]\npartuuid = 'x'\n": (
        '2: tomb.home.partuuid: is "x"; it has to be the UUID of a partition, '
        "as blkid(8) shows under PARTUUID"
    ),
    "[tomb.home]\nlabel = ' '\n": (
        "2: tomb.home.label: is empty; leave the key out, or name the volume"
    ),
    TOMB + "key = 'secret'\n": (
        f'3: tomb.home.key: is "secret", which is not absolute; it has to be {KEY}'
    ),
    **{
        TOMB + f"key = '{key}'\n": f"3: tomb.home.key: {text}"
        for key, text in {
            "drive:a.key": (
                'is "drive:a.key", and the drive itself is the tomb: its key is on another one; '
                "name that, or give the tomb a file"
            ),
            "LABEL=KEYS": f'is "LABEL=KEYS", without a path; it has to be {KEY}',
            "LABEL=KEYS:/a/../b": f'is "/a/../b", with ".." in it; it has to be {KEY}',
            "LABEL=KEYS:/": f'is ""; it has to be {FILE}',
            "drive:../a": f'is "../a"; it has to be {FILE}',
        }.items()
    },
    **{
        TOMB + f"file = '{file}'\n": f'3: tomb.home.file: is "{file}"; it has to be {FILE}'
        for file in ("", "/a.tomb", "a//b", "../a", "a/", "./a")
    },
    "[tomb.home]\nuuid = '1A2B-3C4D'\n": (
        '2: tomb.home.uuid: is "1a2b-3c4d", which no LUKS volume has; if the tomb is a file on '
        'that drive, give file = "PATH" as well'
    ),
    TOMB + "mount = '/home'\n": (
        '3: tomb.home.mount: leads to "/home"; it has to lead to a directory below /var'
    ),
    TOMB + "mount = '/var/log'\n": (
        "3: tomb.home.mount: leads to /var/log, which belongs to the system; "
        "choose another below /var"
    ),
    TOMB + "options = 'noatime'\n": (
        "3: tomb.home.options: is a string; "
        'it has to be an array of mount options such as ["noatime"]'
    ),
    **{
        TOMB + f"options = ['noatime', \"{option}\"]\n": f"3: tomb.home.options: {text}"
        for option, text in {
            "a,suid": 'has "a,suid" in it; write each option as a string of its own',
            "a b": "has 'a b' in it; an option has no spaces or quotes",
            "a\\nb": "contains a control character: 'a\\nb'; it has to be a mount option",
            "": "has '' in it; an option has no spaces or quotes",
            **{
                word: f'has "{word}" in it; a tomb is mounted nosuid,nodev, so leave it out'
                for word in ("suid", "dev", "defaults", "user", "remount", "X-mount.mkdir")
            },
        }.items()
    },
    TOMB + f"[tomb.work]\nuuid = '{UUID}'\nmount = '/var/work'\n": (
        "4: tomb.work.uuid: is the volume of tomb home already"
    ),
    TOMB + "absent_size = '0M'\n": (
        '3: tomb.home.absent_size: is "0M"; '
        'it has to be a size such as "512M" or "2G", or a share of the memory such as "10%"'
    ),
    TOMB + "[tomb.work]\nlabel = 'w'\n": (
        "3: tomb.work: /var/home is where tomb home goes already; give each a directory of its own"
    ),
    TOMB + "[tomb.work]\nlabel = 'w'\nmount = '/var/home/w'\nabsent = 'volatile'\n": (
        '6: tomb.work.absent: has to be "directory" for a tomb inside another, which is home'
    ),
    TOMB + "binds = 3\n": (
        "3: tomb.home.binds: is an integer; it has to be a table such as "
        '{ "alice/Documents" = "/var/lib/documents" }'
    ),
    **{
        TOMB + f"binds = {{ '{path}' = '/var/lib/docs' }}\n": (
            f'3: tomb.home.binds: has "{path}" in it; a path in the tomb is relative, without '
            '".", ".." or double slashes, such as "alice/Documents"'
        )
        for path in ("", "/docs", "a/../b", "..", "./a", "a//b", "a/")
    },
    TOMB + "binds = { a = 'var/lib/docs' }\n": (
        '3: tomb.home.binds: has "a" in it, which is "var/lib/docs", which is not absolute; '
        'it has to be an absolute path such as "/var/home"'
    ),
    **{
        TOMB + f"[tomb.home.binds]\n'x' = '/var/games/x'\n'a b' = '{target}'\n": (
            f'5: tomb.home.binds."a b": {target} {text}'
        )
        for target, text in {
            "/usr/x": "is neither below /var nor below /etc",
            "/var": "is neither below /var nor below /etc",
            "/home/x": 'is behind the link at /home; write "/var/home/x"',
            "/var/home": "would hide /var/home, where /home leads; choose one below it",
            "/var/home/x": "and /var/home, where tomb home goes, are one inside the other",
            "/var/log": "belongs to the system; choose a directory below it",
            "/var/lib": (
                "has to do with /var/lib/dpkg: whoever can write to the drive would be root"
            ),
            "/etc/sudoers.d/x": (
                "has to do with /etc/sudoers.d: whoever can write to the drive would be root"
            ),
            "/var/games/x/y": "and /var/games/x of tomb home are one inside the other",
        }.items()
    },
    "etc.source = '/persist/etc'\n" + TOMB + "binds = { x = '/etc/persist' }\n"
    "[tomb.work]\nlabel = 'w'\nmount = '/var/work'\nbinds = { y = '/etc/persist' }\n": (
        "8: tomb.work.binds.y: /etc/persist and /etc/persist of tomb home are one inside the other"
    ),
    TOMB + "binds = { 'w/x' = '/var/games' }\n[tomb.w]\nlabel = 'w'\nmount = '/var/home/w'\n": (
        '3: tomb.home.binds."w/x": /var/games cannot show w/x: it is where tomb w goes'
    ),
    TOMB + "bind_hooks = 'a b'\n": (
        '3: tomb.home.bind_hooks: is "a b"; it has to be '
        "the name of a user, true for the tomb's single owner, or false"
    ),
    TOMB + "bind_hooks = true\n": (
        "3: tomb.home.bind_hooks: is for a tomb that is mounted elsewhere: "
        "people's homes are in this one"
    ),
    "[tomb.home]\nlabel = 'x'\nencrypted = false\n": (
        "3: tomb.home.encrypted: is false, which is said of one file system and no other; "
        "give its uuid as well"
    ),
    TOMB + "encrypted = false\nkey = 'ask'\n": (
        "3: tomb.home.encrypted: is false, and key is for an encrypted tomb; drop one of them"
    ),
    TOMB + "on_suspend = 'open'\n": (
        '3: tomb.home.on_suspend: is "open"; it has to be one of "keep", "close"'
    ),
    "[links]\n'/data' = '/var/a/b'\n" + TOMB + "mount = '/var/a'\n": (
        "5: tomb.home.mount: /var/a would hide /var/a/b, where /data leads; "
        "mount it elsewhere below /var"
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_a_mistake_is_named_with_file_line_and_key(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}/etc/immud/immud.toml:{message}"
    _, errors = examine(str(tmp_path))
    assert len(errors) == 1, [str(error) for error in errors]


def test_all_mistakes_of_all_files_in_the_order_of_their_places(tmp_path: Path) -> None:
    write(tmp_path, "[links]\n'/data' = '/srv/x'\n[boot]\nwait = -1\n", "usr/lib/immud/immud.toml")
    write(tmp_path, "[usr\n")
    write(tmp_path, "log.level = 1\n", "etc/immud/immud.toml.d/1.toml")
    config, errors = examine(str(tmp_path))
    assert [
        (error.file.removeprefix(str(tmp_path)), error.line, error.key) for error in errors
    ] == [
        ("/usr/lib/immud/immud.toml", 2, 'links."/data"'),
        ("/usr/lib/immud/immud.toml", 4, "boot.wait"),
        ("/etc/immud/immud.toml", 1, ""),
        ("/etc/immud/immud.toml.d/1.toml", 1, "log.level"),
    ]
    assert len(config.files) == 3


def test_a_mistake_in_the_merged_whole_is_at_the_file_that_gave_it(tmp_path: Path) -> None:
    write(tmp_path, TOMB)
    write(tmp_path, "\n\ntomb.home.mount = '/home'\n", "etc/immud/immud.toml.d/1.toml")
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path))
    assert (caught.value.file, caught.value.line, caught.value.key) == (
        f"{tmp_path}/etc/immud/immud.toml.d/1.toml",
        3,
        "tomb.home.mount",
    )


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc/immud/immud.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"immud\.toml: cannot be read: Is a directory"):
        load(str(tmp_path))
