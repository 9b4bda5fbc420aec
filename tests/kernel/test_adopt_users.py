"""Who is told of before an adoption: processes that live, by a name."""

import os
from pathlib import Path

import pytest

from immud.adopt import users, views
from immud.early import mountinfo
from tests.kernel.test_tripwire_elsewhere import WRITABLE, process, protect
from tests.support.namespaces import in_namespace
from tests.support.process import standing


@in_namespace
def test_who_has_a_view_of_their_own_is_named_while_they_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = protect(tmp_path)
    with process(), process(path, WRITABLE) as pid:
        (view,) = views.others((path,), mountinfo.read())
        assert (view.path, view.pid) == (path, pid)
        assert view.name
        # It ends between being found and being named.
        for name in ("unit", "command"):
            monkeypatch.setattr(views, name, lambda _: "")
        assert views.others((path,), mountinfo.read()) == ()


def test_who_could_write_is_named_while_they_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path)
    with standing(f"import os; os.chdir({place!r})") as pid:
        (found,) = users.of((place,))
        assert f"(pid {pid}, " in found
        assert "working directory" in found
        monkeypatch.setattr(users, "command", lambda _: "")
        assert users.of((place,)) == ()
    assert os.listdir(place) == []
