"""Documents and results: the tables say what was measured."""

import pytest

from benchmarks import report
from rtchord.errors import UserError


def test_the_documents_are_up_to_date_with_the_results() -> None:
    assert report.report(check=True) == []


def test_a_marker_is_filled_and_the_rest_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(report.TABLES, "tiny", lambda: report.table(["a"], [["1"]]))
    text = "before\n<!-- table tiny -->\nold\n<!-- end -->\nafter\n"
    assert report.filled(text) == "before\n<!-- table tiny -->\n| a |\n| --- |\n| 1 |\n<!-- end -->\nafter\n"


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(UserError, match="no table 'nothing'"):
        report.filled("<!-- table nothing -->\n<!-- end -->")


def test_a_missing_result_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        report.result("nowhere")
