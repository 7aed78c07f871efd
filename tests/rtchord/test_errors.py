"""What ends a command in a sentence."""

import errno

import pytest
from pydantic import BaseModel, Field, model_validator

from rtchord.errors import UserError, told_in_a_sentence


class Settings(BaseModel):
    steps: int = Field(1, gt=0)
    low: float = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.low > 1:
            raise ValueError(f"low={self.low} is above 1")
        return self


def fail(error: BaseException | dict[str, float]) -> None:
    if isinstance(error, BaseException):
        raise error
    Settings.model_validate(error)


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (UserError("no such thing"), "program: no such thing\n", 2),
        ({"steps": 0}, "program: cannot use steps=0: Input should be greater than 0\n", 2),
        ({"low": 2.0}, "program: low=2.0 is above 1\n", 2),
        (
            PermissionError(errno.EACCES, "Permission denied", "file"),
            "program: cannot use 'file': Permission denied",
            2,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "program: cannot use the disk: No space left on device", 2),
        (
            OSError(errno.ELOOP, "Too many levels of symbolic links", "a\n\x1b[2J"),
            "program: cannot use 'a\\n\\x1b[2J': Too many levels",
            2,
        ),
        (RuntimeError("Symlink loop from 'a'"), "program: symlink loop from 'a'; see to that and start again\n", 2),
        (
            UnicodeEncodeError("utf-8", "M\udcfcller", 1, 2, "surrogates not allowed"),
            "program: cannot use 'M\\udcfcller': it cannot be written in utf-8",
            2,
        ),
        (KeyboardInterrupt(), "program: interrupted\n", 130),
    ],
)
def test_a_sentence_and_an_exit_code(
    error: BaseException | dict[str, float], sentence: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop, told_in_a_sentence("program"):
        fail(error)
    err = capsys.readouterr().err
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert stop.value.code == code


@pytest.mark.parametrize("error", [ConnectionError(errno.ECONNRESET, "reset"), RuntimeError("of ours")])
def test_what_is_no_file_of_the_users_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), told_in_a_sentence("program"):
        raise error
