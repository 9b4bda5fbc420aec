"""Every wrong configuration still ends at a login prompt, protected as before, and says why."""

import pytest

from tests.boot.test_elsewhere import HELLO, STATE, configure, enable, problems
from tests.boot.test_versions import origin
from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.process import CommandFailed

BAD = {
    "broken": ("[usr\n", "immud.toml:1"),
    "unknown key": ("[etc]\nsuorce = 1\n", "did you mean"),
    "wrong type": ("[boot]\nwait = 'long'\n", "boot.wait"),
    "no source": ('[var]\nsource = "/not/there"\n', "/not/there"),
    "outside var": ('[links]\n"/home" = "data/home"\n', "/var"),
    "two for one": ('[links]\n"/home" = "var/home"\n"/home/" = "var/h"\n', "/home"),
}


def test_enable_refuses_and_says_where(container: Container) -> None:
    for text, said in BAD.values():
        configure(container, text)
        with pytest.raises(CommandFailed, match="exit status 1") as refused:
            enable(container)
        assert said in str(refused.value)
        assert container.disk.run("ls", "/etc/immud").stdout == "hooks.d\nimmud.toml\n"


def test_the_last_good_plan_is_used(container: Container) -> None:
    enable(container)
    container.boot()
    for name, (text, said) in BAD.items():
        container.run("tee", "/etc/immud/immud.toml", input=text)
        container.reboot()
        assert container.run(*STATE).stdout == 's "degraded"\n'
        assert ("plan-outdated" if name == "no source" else said) in problems(container)
        assert container.failed_units() == []
        assert container.succeeds("systemctl", "is-active", "-q", "console-getty")
        assert complaints(container) == []


def test_a_plan_that_is_gone_is_compiled_again(container: Container) -> None:
    enable(container)
    container.disk.run("rm", "/etc/immud/boot.plan")
    container.boot()
    assert "plan-missing" in problems(container)
    assert complaints(container) == []


def test_without_any_usable_plan_usr_is_protected(container: Container) -> None:
    enable(container)
    container.disk.write("/etc/immud/boot.plan", "torn")
    configure(container, "[usr\n")
    container.boot()
    assert container.run(*STATE).stdout == 's "degraded"\n'
    assert container.failed_units() == []
    assert not container.succeeds("touch", "/usr/x")
    assert container.succeeds("touch", "/x")


def test_a_changed_configuration_is_compiled_on_the_spot(container: Container) -> None:
    enable(container)
    configure(container, '[links]\n"/srv" = false\n')
    container.boot()
    assert container.run(*STATE).stdout == 's "running"\n'
    told = container.run(
        "busctl", "call", "org.immud1", "/org/immud1", "org.immud1.Manager", "ListLinks"
    )
    assert '"/srv"' not in told.stdout
    assert '"/home"' in told.stdout
    assert origin(container) == "fresh"
    container.reboot()
    assert origin(container) == "compiled"


def test_another_var_waits_for_immud_enable(container: Container) -> None:
    """Which has systemd told what to wait for and what to hold back."""
    enable(container)
    configure(container, '[var]\nsource = "/data/var"\n[boot]\nhold_back = ["hello.service"]\n')
    container.disk.run("mkdir", "/data")
    container.disk.run("cp", "-a", "/var", "/data")
    container.disk.write("/data/var/.immud", "")
    container.disk.write("/etc/systemd/system/hello.service", HELLO)
    container.disk.run("systemctl", "enable", "hello.service")
    container.boot()
    assert container.run(*STATE).stdout == 's "degraded"\n'
    assert "plan-outdated" in problems(container)
    assert container.failed_units() == []
    assert complaints(container) == []
    assert not container.succeeds("test", "-e", "/var/.immud")
    container.run("immud", "enable")
    container.reboot()
    assert container.run(*STATE).stdout == 's "running"\n'
    assert container.succeeds("test", "-e", "/var/.immud")
    held = container.run("systemctl", "show", "-P", "Requires", "hello.service").stdout
    assert "immud-sources.target" in held
    assert complaints(container) == []
