"""The configuration: what is read, and what wins."""

from pathlib import Path

import pytest

from immud.config.layout import SILVERBLUE
from immud.config.load import load
from immud.early import inputs
from immud.early.plan import Row
from immud.errors import ConfigError
from immud.model import Config, TombConfig

UUID = "7d5bd4b3-6f7c-4c1c-9a40-0c6b0bd4bb5b"


def write(root: Path, text: str | bytes, name: str = "etc/immud/immud.toml") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def row(config: Config, path: str) -> Row:
    return next(row for row in config.rows if row.path == path)


def test_without_any_file_the_defaults_are_silverblue(tmp_path: Path) -> None:
    assert load(str(tmp_path)) == Config(rows=SILVERBLUE)


def test_every_key(tmp_path: Path) -> None:
    text = f"""
        [usr]
        source = "UUID={UUID}:/usr.erofs"
        [etc]
        source = "/persist/etc"
        [var]
        source = "LABEL=data:/var"
        [root]
        readonly = false
        [boot]
        wait = 30
        hold_back = ["db@main.service"]
        [log]
        level = "debug"
        [layout]
        table = "none"
        [links]
        "/home" = "/var/home"
        "/usr/local" = {{ target = "../var/usrlocal", kind = "bind", mode = "0750" }}
        [tomb.home]
        uuid = "{UUID.upper()}"
        label = "Mine"
        partuuid = "1234abcd-01"
        serial = "S1"
        key = "/etc/immud/home.key"
        mount = "/var/home"
        options = ["noatime", "commit=60"]
        auto_open = false
        absent = "volatile"
        absent_size = "512M"
        on_return = "over"
        on_suspend = "close"
        [tomb.work]
        label = "Work"
        mount = "/var/home/alice"
        bind_hooks = "alice"
        [tomb.work.binds]
        "projects" = "/var/lib/projects"
        "etc/hosts.work" = "/etc/hosts.work"
    """
    write(tmp_path, text)
    assert load(str(tmp_path)) == Config(
        usr=f"UUID={UUID}:/usr.erofs",
        etc="/persist/etc",
        var="LABEL=data:/var",
        root_readonly=False,
        wait=30,
        hold_back=("db@main.service",),
        log_level="debug",
        rows=(Row("/home", "var/home"), Row("/usr/local", "../var/usrlocal", "bind", 0o750)),
        tombs=(
            TombConfig(
                "home",
                uuid=UUID,
                label="Mine",
                partuuid="1234abcd-01",
                serial="S1",
                key="/etc/immud/home.key",
                mount="/var/home",
                options=("noatime", "commit=60"),
                auto_open=False,
                absent="volatile",
                absent_size="512M",
                on_return="over",
                on_suspend="close",
            ),
            TombConfig(
                "work",
                label="Work",
                mount="/var/home/alice",
                absent="directory",
                bind_hooks="alice",
                binds=(
                    ("projects", "/var/lib/projects"),
                    ("etc/hosts.work", "/etc/hosts.work"),
                ),
            ),
        ),
        files=(("/etc/immud/immud.toml", text.encode()),),
    )


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "boot.wait = 1\nlog.level = 'err'\n", "usr/lib/immud/immud.toml")
    write(tmp_path, f"[boot]\nwait = 2\n[tomb.home]\nuuid = '{UUID}'\nkey = 'ask'\n")
    write(tmp_path, "boot.wait = 4\n", "etc/immud/immud.toml.d/20-b.toml")
    write(tmp_path, "boot.wait = 3\ntomb.home.key = '/k'\n", "etc/immud/immud.toml.d/10-a.toml")
    write(tmp_path, "boot.wait = 9\n", "etc/immud/immud.toml.d/30-c.toml~")
    write(tmp_path, "boot.wait = 9\n", "etc/immud/immud.toml.d/.40-d.toml")
    config = load(str(tmp_path))
    assert (config.wait, config.log_level) == (4, "err")
    assert config.tombs == (TombConfig("home", uuid=UUID, key="/k"),)
    assert [path for path, _ in config.files] == [
        "/usr/lib/immud/immud.toml",
        "/etc/immud/immud.toml",
        "/etc/immud/immud.toml.d/10-a.toml",
        "/etc/immud/immud.toml.d/20-b.toml",
    ]


@pytest.mark.parametrize(
    "key",
    ["ask", "/etc/immud/keys/x", "drive:tombs/secret.tomb.key", "LABEL=my keys:/a/b", "UUID=1:/k"],
)
def test_a_tomb_in_a_file_and_where_its_key_is(tmp_path: Path, key: str) -> None:
    write(tmp_path, f"[tomb.home]\nuuid = '1A2B-3C4D'\nfile = 'tombs/secret.tomb'\nkey = '{key}'\n")
    config = load(str(tmp_path))
    assert config.tombs == (
        TombConfig("home", uuid="1a2b-3c4d", file="tombs/secret.tomb", key=key),
    )


def test_two_tombs_may_be_on_one_drive(tmp_path: Path) -> None:
    table = "[tomb.{0}]\nlabel = 'x'\nuuid = '1a2b-3c4d'\nmount = '/var/{0}'\nfile = '{0}'\n"
    write(tmp_path, table.format("one") + table.format("two"))
    assert len(load(str(tmp_path)).tombs) == 2


def test_a_row_is_changed_dropped_added_and_brought_back(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[links]\n"/home".kind = "bind"\n"/mnt" = false\n"/data" = "/var/data"\n"/srv" = false\n',
    )
    write(
        tmp_path,
        '[links]\n"/home".mode = "0711"\n"/srv" = { kind = "link" }\n',
        "etc/immud/immud.toml.d/1.toml",
    )
    config = load(str(tmp_path))
    assert row(config, "/home") == Row("/home", "var/home", "bind", 0o711)
    assert row(config, "/srv") == Row("/srv", "var/srv")
    assert config.rows[-1] == Row("/data", "var/data")
    assert "/mnt" not in [row.path for row in config.rows]


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ('"/usr/local" = "/var/usrlocal"', "../var/usrlocal"),
        ('"/usr/local" = "../var/usrlocal"', "../var/usrlocal"),
        ('"/data" = "var/a/b"', "var/a/b"),
        ('"/data" = "/var/a/b"', "var/a/b"),
        ('"/srv/www" = "/var/www"\n"/srv" = false', "../var/www"),
    ],
)
def test_targets_are_what_a_link_contains(tmp_path: Path, written: str, target: str) -> None:
    write(tmp_path, f"[links]\n{written}\n")
    config = load(str(tmp_path))
    assert row(config, written.split('"')[1]).target == target


def test_silverblues_own_targets_outside_var_stay(tmp_path: Path) -> None:
    write(tmp_path, '[links]\n"/media" = "run/media"\n"/tmp".mode = "1777"\n')
    assert load(str(tmp_path)).rows == SILVERBLUE


def test_phase_1_reads_the_very_same_files(tmp_path: Path) -> None:
    """Or every boot would take the plan for outdated, and compile it again."""
    for number, name in enumerate(
        (
            *("usr/lib/immud/immud.toml", "etc/immud/immud.toml"),
            *(f"etc/immud/immud.toml.d/{name}" for name in ("b.toml", "a.toml", "B.toml")),
            *(f"etc/immud/immud.toml.d/{name}" for name in (".c.toml", "d.toml~", "e.conf")),
        )
    ):
        write(tmp_path, f"boot.wait = {number}\n", name)
    (tmp_path / "etc/immud/immud.toml.d/.#lock.toml").symlink_to("user@host:1")
    found = inputs.contents(str(tmp_path))
    assert found == load(str(tmp_path)).files
    assert len(found) == 5


def test_a_dangling_link_is_not_an_absent_file(tmp_path: Path) -> None:
    write(tmp_path, "", "etc/immud/immud.toml.d/1.toml")
    (tmp_path / "etc/immud/immud.toml.d/2.toml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"2\.toml: cannot be read: No such file"):
        load(str(tmp_path))
