"""Documents and results: the tables say what was measured."""

import pytest

from benchmarks import report
from rtchord.errors import UserError
from rtchord.settings import LATENCIES


def test_the_documents_are_up_to_date_with_the_results() -> None:
    assert report.report(check=True) == []


@pytest.mark.parametrize("preset", LATENCIES)
def test_the_help_of_latency_tells_what_was_measured(preset: str) -> None:
    strums, songs = (report.result(f"online-{name}-{preset}")["scores"] for name in ("strum", "pop"))
    milliseconds = [round(1000 * scores["lat_med"]) for scores in (strums, songs)]
    assert (*milliseconds, *(round(scores["events_per_change"], 2) for scores in (strums, songs))) == LATENCIES[preset]


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
