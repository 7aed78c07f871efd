"""Files that are whole or not there."""

from pathlib import Path

import pytest

from rtchord.errors import UserError
from train.files import agree, replaced


def test_what_was_written_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in ("one", "two"):
        with replaced(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def break_off(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError


def test_where_it_goes_wrong_the_file_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(RuntimeError), replaced(path) as temporary:
        break_off(temporary)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_is_told() -> None:
    with pytest.raises(UserError, match="cannot write '/dev/full/x'"), replaced(Path("/dev/full/x")) as temporary:
        temporary.write_text("text")


def test_settings_are_compared_to_the_first_that_differs() -> None:
    agree(Path("run"), {"a": 1, "b": {"c": 2}}, {"b": {"c": 2}, "a": 1})
    with pytest.raises(UserError, match="'run' was begun with c 2, not 3"):
        agree(Path("run"), {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    with pytest.raises(UserError, match="begun with d None, not 4"):
        agree(Path("run"), {"a": 1}, {"a": 1, "d": 4})
