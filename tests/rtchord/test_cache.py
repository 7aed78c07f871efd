"""Where machine code is kept: somewhere, if at all possible, and never where somebody else can put code."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from rtchord.cache import place

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX owners and permissions")


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a folder for temporary files; the latter is asked for once in the life of a process."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def unusable(path: Path) -> None:
    """A file in place of a folder: not even root can make a folder below it."""
    if path.is_dir():
        path.rmdir()
    path.write_text("")


def temporary(homes: Path) -> Path:
    return homes / "temporary" / f"rtchord-{os.getuid()}-it"


def test_it_is_made_among_the_users_caches_for_the_user_alone(homes: Path) -> None:
    folder = homes / "home/.cache/rtchord/it"
    assert place("it") == (folder, True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_where_one_asked_for_it_comes_first(homes: Path) -> None:
    assert place("it", str(homes / "asked")) == (homes / "asked/it", True)


def test_without_a_home_it_lies_among_temporary_files_and_says_so(homes: Path) -> None:
    unusable(homes / "home")
    assert place("it") == (temporary(homes), False)
    assert temporary(homes).stat().st_mode & 0o777 == 0o700


def test_a_home_that_is_not_there_is_not_made(homes: Path) -> None:
    (homes / "home").rmdir()
    assert place("it") == (temporary(homes), False)
    assert not (homes / "home").exists()


def test_what_was_asked_for_and_cannot_be_written_is_no_fault(homes: Path) -> None:
    unusable(homes / "asked")
    assert place("it", str(homes / "asked")) == (homes / "home/.cache/rtchord/it", True)


def test_where_nothing_can_be_written_there_is_no_place(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unusable(homes / "home")
    monkeypatch.setattr(tempfile, "tempdir", str(homes / "home"))
    assert place("it") is None


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_is_not_used(homes: Path, mode: int) -> None:
    unusable(homes / "home")
    temporary(homes).mkdir()
    temporary(homes).chmod(mode)
    assert place("it") is None


def test_a_link_to_elsewhere_is_not_followed(homes: Path) -> None:
    unusable(homes / "home")
    (homes / "elsewhere").mkdir(mode=0o700)
    temporary(homes).symlink_to(homes / "elsewhere")
    assert place("it") is None


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(homes: Path) -> None:
    unusable(homes / "home")
    temporary(homes).mkdir(mode=0o700)
    os.chown(temporary(homes), 12345, 12345)
    assert place("it") is None
