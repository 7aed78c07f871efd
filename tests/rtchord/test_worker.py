"""Outputs that block, fall behind or raise, and what the others have of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rtchord.outputs.worker import PRIORITY, first_in_line


def _allowed() -> bool:
    try:
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        os.sched_setscheduler(0, before, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.skipif(not _allowed(), reason="the system lets nobody here go first")
def test_a_live_session_goes_before_ordinary_programs_and_what_it_starts_does_not() -> None:
    say = "import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER)"
    with first_in_line():
        assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
        started = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert started.stdout == "True\n"
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


def test_a_session_that_may_not_go_first_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with first_in_line():
        entered = True
    assert entered
