"""What is measured after an engine was built goes into its manifest."""

import json
import shutil
from pathlib import Path

import pytest

from engines.describe import describe
from rtchord.engine import load, read_manifest, sealed, shipped
from rtchord.errors import UserError


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped(), tmp_path / "engine"))


def test_describe_writes_delay_and_scores_and_leaves_the_model(engine: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"set": "songs", "latency": "fast", "scores": {"majmin": 0.5, "rare_mean": None}}))
    before = read_manifest(engine)
    describe(engine, 0.1, [result])
    after = load(engine).manifest
    assert after.scores == {**before.scores, "songs, fast": {"majmin": 0.5}}
    assert after == sealed(before.model_copy(update={"delay": 0.1, "scores": after.scores}))


def test_describe_refuses_what_is_no_result(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(UserError, match=r"no\.json"):
        describe(engine, None, [tmp_path / "no.json"])


def test_the_shipped_engine_was_checked_and_says_what_it_is() -> None:
    manifest = load().manifest
    assert manifest.check is not None
    assert manifest.check.max_error < 1e-4
    assert manifest.check.chords == 1
    assert manifest.check.seconds >= 600, "ten minutes of stream"
    assert {"first", "second"} <= manifest.provenance.keys(), "it is a blend of both stages"
    assert {"pop, balanced", "strum, balanced"} <= manifest.scores.keys()
    assert manifest.delay > 0
