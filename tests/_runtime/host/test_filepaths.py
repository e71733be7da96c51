"""What others could replace. Other users' directories are in ``tests/integration/test_rundir.py``: root makes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycorrizal._runtime.host.filepaths import exposed


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Path]:
    """A directory three levels deep, all of them this user's alone."""
    before = os.umask(0o022)
    path = tmp_path / "a" / "b" / "c"
    path.mkdir(parents=True)
    yield path
    os.umask(before)


def test_own_directories_are_fine_and_so_is_the_sticky_bit(way: Path, tmp_path: Path) -> None:
    for mode in (0o755, 0o700, 0o1777, 0o3775):
        (tmp_path / "a").chmod(mode)
        assert exposed(str(way), group=True) is None


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize(("mode", "who"), [(0o777, "anybody"), (0o757, "anybody"), (0o775, "its group")])
def test_directory_that_others_may_write_is_named_at_any_level(way: Path, level: int, mode: int, who: str) -> None:
    found = [way, *way.parents][level]
    found.chmod(mode)
    assert exposed(str(way), group=True) == f"{who} may write {found} (mode {mode:04o})"
    assert (exposed(str(way), group=False) is None) == (who == "its group")


@pytest.mark.parametrize("target", ["{}/open/x", "open/x", "./a/../open/x", "second"])
def test_link_leads_through_what_others_may_write(way: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "open" / "x").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "second").symlink_to(tmp_path / "open" / "x")
    (tmp_path / "link").symlink_to(target.format(tmp_path))
    (tmp_path / "fine").symlink_to(way)
    assert exposed(str(tmp_path / "link"), group=True) == f"anybody may write {tmp_path}/open (mode 0777)"
    assert exposed(str(tmp_path / "fine" / ".." / "c"), group=True) is None


def test_sticky_bit_of_a_file_is_none(way: Path) -> None:
    (way / "file").write_bytes(b"")
    (way / "file").chmod(0o1666)
    assert exposed(str(way / "file"), group=True) == f"anybody may write {way}/file (mode 1666)"


def test_what_cannot_be_judged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "missing/deeper", "loop"):
        with pytest.raises(OSError, match="No such file|symbolic links"):
            exposed(str(tmp_path / name), group=True)


def test_other_user_s_directory_is_named(way: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lstat
    theirs = way.parent

    def lstat(path: str) -> os.stat_result:
        found = list(real(path))
        found[4] = 4242 if path == str(theirs) else found[4]
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", lstat)
    assert exposed(str(way), group=False) == f"{theirs} belongs to user 4242"


def test_as_many_links_as_linux_follows(way: Path) -> None:
    last = way
    for number in range(41):
        link = way / f"link{number}"
        link.symlink_to(last)
        last = link
    assert exposed(str(way / "link39"), group=True) is None
    with pytest.raises(OSError, match="symbolic links"):
        exposed(str(way / "link40"), group=True)
