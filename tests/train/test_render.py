from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

from rtchord.chords import NO_BASS, NO_CHORD, QUALITIES, Chord, N, Quality, X, class_index, pitch_classes
from rtchord.cqt import DEFINITIONS, STAGE, Features, FrameStream
from rtchord.errors import UserError
from tests.train.labelling import RECIPE, Counts, Ramp
from train import render, store, strings
from train.effects import EFFECTS
from train.label import ordered, targets
from train.labels import Segment, parse, read_labels

FEATURES = Features()
EVEN_WITHIN = 1.3  # factor by which a quality's or root's share of the even charts' time may miss the mean
CHORDS = [Chord(index, bass) for index in range(X) for bass in pitch_classes(index)]
SLASH = [Chord(index, (index + 1) % 12) for index in range(X)]  # most of their basses are no chord tones
CLEAN = EFFECTS.model_copy(update={"tuned_near": 0.0, "tuned_far": 0.0, "talk": 0.0, "room": 0.0, "codec": 0.0})
EVERYTHING = EFFECTS.model_copy(
    update={"tuned_near": 0.0, "tuned_far": 1.0, "room": 1.0, "codec": 1.0, "talk": 0.0, "noise_below": (40, 70)}
)

needs_synthesizer = pytest.mark.skipif(
    not shutil.which("fluidsynth") or not any(font.exists() for font in render.SOUNDFONTS),
    reason="fluidsynth or its soundfonts are not installed",
)


def notes_of(piece: render.Piece) -> list[tuple[int, int, int, float, float]]:
    return [
        (track.program, note.pitch, note.velocity, note.start, note.end)
        for track in piece.midi.instruments
        for note in track.notes
    ]


def held(labels: list[str], seconds: float) -> render.Piece:
    """Organ chords of `seconds` each, between half a second of silence."""
    midi = pretty_midi.PrettyMIDI()
    track = render.instrument(midi, 19)
    segments: list[Segment] = [(0.0, 0.5, NO_CHORD)]
    for label in labels:
        start = segments[-1][1]
        segments.append((start, start + seconds, parse(label)))
        notes = [] if label == "N" else render.block_voicing(np.random.default_rng(0), parse(label))
        for pitch in notes:
            render.add(track, pitch, start, start + seconds, 90)
    return render.Piece(midi, segments, segments[-1][1] + 0.5)


def song(folder: Path, name: str) -> None:
    """A POP909-like song of one chord and four seconds."""
    midi = pretty_midi.PrettyMIDI()
    for part in ("MELODY", "BRIDGE", "PIANO"):
        track = pretty_midi.Instrument(0, name=part)
        track.notes = [pretty_midi.Note(90, pitch, 0.5, 4.0) for pitch in (60, 64, 67)]
        midi.instruments.append(track)
    midi.write(str(folder / f"{name}.mid"))
    (folder / f"{name}.lab").write_text("0.0 0.5 N\n0.5 4.0 C:maj\n")
    (folder / f"{name}.beats").write_text("".join(f"{beat * 0.5} 1\n" for beat in range(9)))


@pytest.mark.parametrize("seed", range(5))
def test_a_chart_is_a_function_of_its_seed(seed: int) -> None:
    first, second = (render.chart_piece(np.random.default_rng(seed), 20.0) for _ in range(2))
    assert notes_of(first) == notes_of(second)
    assert first.segments == second.segments


def test_charts_of_two_seeds_differ() -> None:
    first, second = (render.chart_piece(np.random.default_rng(seed), 20.0) for seed in (0, 1))
    assert first.segments != second.segments


@pytest.mark.parametrize("seed", range(5))
def test_the_chords_of_a_chart_follow_one_another_without_gaps(seed: int) -> None:
    segments = render.chart_piece(np.random.default_rng(seed), 20.0).segments
    assert segments[0][0] == 0.0
    assert [start for start, _, _ in segments[1:]] == [end for _, end, _ in segments[:-1]]


@pytest.mark.parametrize("voicing", [render.guitar_voicing, render.shape, render.block_voicing])
def test_a_voicing_holds_exactly_the_tones_and_the_bass_at_the_bottom(voicing: object) -> None:
    assert callable(voicing)
    rng = np.random.default_rng(5)
    for chord in [*CHORDS, *SLASH]:
        notes = voicing(rng, chord)
        assert {note % 12 for note in notes} == {chord.bass, *pitch_classes(chord.index)}
        assert min(notes) % 12 == chord.bass


def test_guitar_voicings_lie_on_the_guitar() -> None:
    rng = np.random.default_rng(6)
    for chord in CHORDS:
        notes = render.guitar_voicing(rng, chord)
        assert notes == sorted(notes)
        assert min(notes) >= 36
        assert max(notes) <= render.OPEN_STRINGS[-1] + 22


@pytest.mark.parametrize("quality", QUALITIES, ids=lambda quality: quality.name)
def test_known_shapes_hold_exactly_the_tones_of_their_quality_over_its_root(quality: Quality) -> None:
    for frets in render.SHAPES[quality.name]:
        notes = render.fretted(frets)
        assert notes == sorted(notes)
        assert {(note - notes[0]) % 12 for note in notes} == set(quality.tones)


def test_a_shape_is_played_low_on_the_neck_most_often() -> None:
    rng = np.random.default_rng(3)
    lowest = [render.shape(rng, parse("E:maj"))[0] for _ in range(200)]
    assert min(lowest) == 40
    assert max(lowest) <= render.OPEN_STRINGS[2] + render.HIGHEST_BARRE
    assert np.mean(np.array(lowest) == 40) > 0.5


def test_a_hand_misses_only_notes_that_sound_in_another_octave() -> None:
    rng = np.random.default_rng(12)
    hand = render.Hand(missed=1.0)
    for chord in CHORDS:
        track = pretty_midi.Instrument(0)
        notes = render.guitar_voicing(rng, chord)
        render.play_chord(rng, track, notes, 0.0, 1.0, hand)
        played = [note.pitch for note in track.notes]
        assert min(played) == notes[0]
        assert {pitch % 12 for pitch in played} >= {pitch % 12 for pitch in notes if pitch % 12 != chord.bass}
        assert len(played) < len(notes) or len({pitch % 12 for pitch in notes}) == len(notes)


def test_brushed_strings_are_the_softest() -> None:
    rng = np.random.default_rng(13)
    track = pretty_midi.Instrument(0)
    render.play_chord(rng, track, [50, 57, 62, 66], 0.0, 1.0, render.Hand(spread=0.0, brushed=1.0))
    levels = {note.pitch: note.velocity for note in track.notes}
    assert set(levels) == {50, 57, 62, 66, *render.OPEN_STRINGS}
    brushed = [levels[pitch] for pitch in render.OPEN_STRINGS if pitch not in (50, 57, 62, 66)]
    assert max(brushed) <= 0.5 * levels[57]


@pytest.mark.parametrize(("end", "longest"), [(3.0, 0.3), (0.2, 0.2 * render.LONGEST_PART)])
def test_a_stroke_lasts_as_long_as_the_hand_and_the_time_let_it(end: float, longest: float) -> None:
    rng = np.random.default_rng(14)
    for _ in range(20):
        track = pretty_midi.Instrument(0)
        render.play_chord(rng, track, [40, 47, 52, 56, 59, 64], 0.0, end, render.Hand(stroke=0.3))
        starts = sorted(note.start for note in track.notes)
        assert starts[0] == 0.0
        assert min(0.09, longest) - 1e-9 <= starts[-1] <= longest + 1e-9


def test_guitarists_stroke_fast_and_slowly() -> None:
    rng = np.random.default_rng(15)
    strokes = [render.guitarist(rng).stroke for _ in range(300)]
    assert max(strokes) <= render.SLOWEST_STROKE
    assert 0.2 < np.mean(np.array(strokes) < 0.05) < 0.4
    assert 0.3 < np.mean(np.array(strokes) > 0.15) < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_chord_that_rings_on_is_not_struck_again(seed: int) -> None:
    for style in ("once", "rhythm", "arpeggio"):
        track = pretty_midi.Instrument(0)
        rng = np.random.default_rng(seed)
        render.play_segment(rng, track, [48, 52, 55], 1.0, 2.0, 3.5, style, render.EVEN)
        assert max(note.start for note in track.notes) < 2.0
        assert max(note.end for note in track.notes) == 3.5


@pytest.mark.parametrize("seed", range(30))
def test_a_chord_rings_into_the_next_one_only_and_ends_none_of_its_notes(seed: int) -> None:
    piece = render.chart_piece(np.random.default_rng(seed), 20.0)
    notes = sorted(piece.midi.instruments[0].notes, key=lambda note: note.start)
    ends = [end for _, end, _ in piece.segments]
    for note in notes:
        here = next(i for i, end in enumerate(ends) if note.start < end)
        silence = here + 1 == len(ends) or piece.segments[here + 1][2] == NO_CHORD
        assert note.end <= max(note.start + 0.05, ends[here] if silence else ends[here + 1]) + 1e-6
    for pitch in {note.pitch for note in notes}:
        same = [note for note in notes if note.pitch == pitch]
        assert all(a.end <= b.start or a.start == b.start for a, b in pairwise(same))


def test_a_chart_with_a_capo_is_labelled_as_it_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "CAPO", 1.0)
    monkeypatch.setattr(render, "Hand", lambda *_: render.EVEN)
    for seed in range(20):
        piece = render.chart_piece(np.random.default_rng(seed), 10.0)
        notes = piece.midi.instruments[0].notes
        for start, end, chord in piece.segments:
            attacks = {note.pitch % 12 for note in notes if start <= note.start < end}
            assert attacks <= set(pitch_classes(chord.index))


def test_the_sampler_draws_every_quality_root_and_inversion() -> None:
    rng = np.random.default_rng(7)
    drawn = [render.random_chord(rng) for _ in range(3_000)]
    assert {chord.quality for chord in drawn} == {quality.name for quality in QUALITIES}
    assert {chord.root for chord in drawn} == set(range(12))
    assert all(chord.bass in pitch_classes(chord.index) for chord in drawn)
    inverted = np.mean([chord.bass != chord.root for chord in drawn if chord.quality not in ("aug", "dim7")])
    assert 0.15 < inverted < 0.25


@pytest.mark.parametrize(
    ("label", "others"),
    [("C:maj", ["3", "5"]), ("C:7", ["3", "5", "b7"]), ("C:maj6", ["3", "5"]), ("C:min7", ["5", "b7"]),
     ("C:aug", []), ("C:dim7", []), ("C:sus4", ["5"])],
)  # fmt: skip
def test_an_inversion_that_sounds_like_another_root_position_is_not_drawn(label: str, others: list[str]) -> None:
    index = parse(label).index
    assert [Chord(index, bass).label for bass in render.inversions(index)] == [label, *(f"{label}/{o}" for o in others)]


def test_the_sampler_follows_its_weights() -> None:
    rng = np.random.default_rng(8)
    drawn = Counter(render.random_chord(rng).quality for _ in range(3_000))
    for name, weight in render.QUALITY_WEIGHTS.items():
        share = weight / sum(render.QUALITY_WEIGHTS.values())
        assert drawn[name] / 3_000 == pytest.approx(share, abs=5 * np.sqrt(share / 3_000))


@needs_synthesizer
def test_a_rendered_piece_sounds_while_its_chords_last() -> None:
    audio = render.play(held(["C:maj", "A:min"], 2.5), np.random.default_rng(1), 22_050)
    assert audio.size == 6 * 22_050
    loudness = [float(np.abs(audio[round(a * 22_050) : round(b * 22_050)]).max()) for a, b in ((0.0, 0.45), (0.7, 5.3))]
    assert loudness[0] < 1e-3 < 0.02 < loudness[1]


@needs_synthesizer
def test_a_rendered_track_labels_each_frame_with_the_chord_of_its_moment() -> None:
    piece = held(["C:maj", "E:min/b3", "N", "G:7"], 1.25)
    audio = render.sound(piece, np.random.default_rng(2))
    track = targets(audio, render.RATE, ["live"], segments=piece.segments)["live"]
    stream = FrameStream(FEATURES.sample_rate, FEATURES)
    assert len(track["features"]) == int(piece.duration * FEATURES.sample_rate) // FEATURES.hop
    for frame, (index, bass) in enumerate(zip(track["class_index"], track["bass_index"], strict=True)):
        now = stream.time_of(frame)
        true = next((chord for start, end, chord in piece.segments if start <= now < end), NO_CHORD)
        assert (index, bass) == (true.index, true.bass)


@needs_synthesizer
def test_the_features_of_a_rendered_track_show_its_chord() -> None:
    piece = held(["C:maj"], 5.0)
    audio = render.sound(piece, np.random.default_rng(2), CLEAN)
    track = targets(audio, render.RATE, ["live"], segments=piece.segments)["live"]
    sounding = track["features"][track["class_index"] == parse("C:maj").index].astype(np.float64)
    chroma = np.exp(sounding[40:]).reshape(-1, FEATURES.octaves, 12, 2)[:, 1:4].sum(axis=(0, 1))
    assert set(np.argsort(chroma[:, 0])[-3:]) == {0, 4, 7}


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """A collection of two songs."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for name in ("001", "002"):
        song(folder, name)
    return folder


def features_in(folder: Path, definition: str = STAGE) -> dict[str, np.ndarray]:
    return {piece.key: piece.track["features"] for piece in store.open_tracks([folder], definition)}


def test_a_song_keeps_its_pedal(songs: Path) -> None:
    midi = pretty_midi.PrettyMIDI(str(songs / "001.mid"))
    pedal = pretty_midi.ControlChange(64, 127, 1.0)
    for part in midi.instruments:
        part.control_changes = [pedal, pretty_midi.ControlChange(7, 100, 0.0)]
    midi.write(str(songs / "001.mid"))
    piece = render.pop_piece(songs / "001.mid", np.random.default_rng(1))
    kept = [[(c.number, c.value) for c in track.control_changes] for track in piece.midi.instruments]
    assert [(64, 127)] in kept
    assert all(number == 64 for changes in kept for number, _ in changes)


@needs_synthesizer
def test_songs_of_the_development_set_are_left_out_and_finished_tracks_kept(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "development").mkdir()
    (tmp_path / "development" / "002.lab").write_text("0.0 4.0 C:maj\n")
    chosen = {"pop909": songs, "exclude": tmp_path / "development", "seed": 3}
    render.render_folder(tmp_path / "made", songs=2, **chosen)
    assert store.keys(tmp_path / "made") == {"pop/001-3-0", "pop/001-3-1"}
    before = sorted(tmp_path.glob("made/*.tar"))
    capsys.readouterr()
    render.render_folder(tmp_path / "made", songs=3, **chosen)
    assert "1 of them new" in capsys.readouterr().err
    assert sorted(tmp_path.glob("made/*.tar"))[: len(before)] == before
    assert store.keys(tmp_path / "made") == {"pop/001-3-0", "pop/001-3-1", "pop/001-3-2"}


@needs_synthesizer
def test_a_track_is_a_function_of_its_name_and_the_seed(songs: Path, tmp_path: Path) -> None:
    for name, count, seed in (("first", 2, 3), ("second", 1, 3), ("other", 1, 4)):
        render.render_folder(tmp_path / name, pop909=songs, songs=count, seed=seed)
    first, second, other = (features_in(tmp_path / name) for name in ("first", "second", "other"))
    ((key, frames),) = second.items()
    assert np.array_equal(frames, first[key])
    (unlike,) = other.values()
    assert not np.array_equal(frames, unlike)


@needs_synthesizer
def test_one_rendering_gives_a_track_of_each_feature_definition_and_what_is_known_of_it(
    songs: Path, tmp_path: Path
) -> None:
    definitions = ["live", "librosa-0.11"]
    render.render_folder(tmp_path / "made", features=definitions, pop909=songs, songs=1)
    for name in definitions:
        (piece,) = store.open_tracks([tmp_path / "made"], name)
        assert {"source": "pop", "song": piece.key[4:7], "labels": "rendered", "split": "train"}.items() <= (
            piece.about.items()
        )
        assert len(piece.track["features"]) == pytest.approx(
            piece.about["seconds"] * DEFINITIONS[name].frame_rate, abs=2
        )
        assert len(np.unique(piece.track["class_index"])) == 2


@needs_synthesizer
def test_a_teacher_and_an_embedder_hear_what_was_rendered(songs: Path) -> None:
    job = render.jobs_of(songs, 1, None, None, 0, 0, None, 0)[0]
    teacher = Counts()
    track = render.made(job, RECIPE, teacher, Ramp(), None).tracks["live"]
    assert teacher.heard == [job.play()[0].size]
    assert set(track) == {"features", "classes", "bass", "class_index", "bass_index", "embedding"}


@needs_synthesizer
def test_the_sound_is_kept_with_its_labels(songs: Path, tmp_path: Path) -> None:
    render.render_folder(tmp_path / "made", pop909=songs, songs=1, audio=tmp_path / "audio")
    (piece,) = store.open_tracks([tmp_path / "made"], STAGE)
    path = tmp_path / "audio" / f"{piece.key}.flac"
    audio, rate = soundfile.read(path, dtype="float32")
    heard = targets(audio, rate, [STAGE], segments=read_labels(path.with_suffix(".lab")).segments)[STAGE]
    assert np.array_equal(heard["class_index"], piece.track["class_index"])
    assert np.corrcoef(heard["features"].ravel(), piece.track["features"].ravel())[0, 1] > 0.98


def test_charts_for_guitar_are_played_on_recorded_guitars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(render, "installed", list)
    monkeypatch.setattr(render, "PLUCKED", 1.0)
    monkeypatch.setattr(render, "play", lambda piece, _, rate: np.zeros(round(piece.duration * rate), np.float32))
    monkeypatch.setattr(strings, "RECORDED", 1.0)
    monkeypatch.setattr(
        strings, "recorded", lambda folder, rate: {"quiet": {60: np.zeros(rate, np.float32)}}[folder.name]
    )
    monkeypatch.setattr(render, "add_noise", lambda audio, *_: audio)
    render.render_folder(tmp_path / "made", charts=4, audio=tmp_path / "sound", guitars=[Path("quiet")])
    render.render_folder(tmp_path / "ours", charts=4, audio=tmp_path / "strings")
    silent, heard = (
        [not soundfile.read(path)[0].any() for path in sorted((tmp_path / name).rglob("*.flac"))]
        for name in ("sound", "strings")
    )
    assert all(silent)
    assert not all(heard)


def test_a_folder_that_holds_no_guitar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-guitar"):
        render.render_folder(tmp_path / "made", charts=1, guitars=[tmp_path / "no-guitar"])


def test_hours_take_a_part_of_the_pieces(songs: Path) -> None:
    jobs = render.jobs_of(songs, 2, None, None, 10, 10, None, 0)
    taken = ordered(jobs, 0.25)
    assert taken == ordered(jobs)[: len(taken)]
    seconds = sum(job.seconds for job in taken)
    assert 900 <= seconds < 900 + render.CHART_SECONDS


def test_charts_of_real_songs_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("a/1.abc", "b/1.abc", "b/St. Louis.mxl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    keys = [job.key for job in render.jobs_of(None, 0, None, tmp_path, 0, 0, None, 7)]
    assert keys[:2] == ["sheets/a/1-7", "sheets/b/1-7"]
    assert keys[2].startswith("sheets/b/St_ Louis-7")
    assert len(set(keys)) == 3


def test_nothing_to_render_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to render; give --songs"):
        render.render_folder(tmp_path)


@needs_synthesizer
def test_a_transposed_song_keeps_quality_and_silence(tmp_path: Path) -> None:
    song(tmp_path, "001")
    shifts = set()
    for seed in range(12):
        piece = render.pop_piece(tmp_path / "001.mid", np.random.default_rng(seed))
        chord = piece.segments[1][2]
        assert piece.segments[0][2] == Chord(N, NO_BASS)
        assert (chord.quality, chord.bass) == ("maj", chord.root)
        played = {note.pitch % 12 for note in piece.midi.instruments[0].notes if not piece.midi.instruments[0].is_drum}
        assert played == set(pitch_classes(chord.index))
        shifts.add(chord.root)
    assert len(shifts) > 3


def test_a_collection_of_held_out_songs_only_is_refused(tmp_path: Path) -> None:
    song(tmp_path, "001")
    with pytest.raises(UserError, match="no POP909 songs"):
        render.render_folder(tmp_path / "target", pop909=tmp_path, songs=1, exclude=tmp_path)


def test_songs_without_a_collection_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--pop909"):
        render.render_folder(tmp_path, songs=1)


def test_a_missing_synthesizer_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install fluidsynth"):
        render.play(held(["C:maj"], 1.0), np.random.default_rng(0), 22_050)
    with pytest.raises(UserError, match="apt-get install fluidsynth"):
        render.render_folder(tmp_path, charts=1)


def test_a_rest_has_no_chord() -> None:
    rng = np.random.default_rng(0)
    pieces = [render.rest_piece(rng, duration=1.0) for _ in range(20)]
    assert {segment[2].label for piece in pieces for segment in piece.segments} == {"N"}
    assert {len(piece.midi.instruments) for piece in pieces} == {0, 1}, "some have drums, some have nothing"


def test_even_charts_cover_all_qualities_roots_and_inversions_alike() -> None:
    rng = np.random.default_rng(0)
    time: Counter[tuple[str, int, int]] = Counter()
    for _ in range(200):
        for start, end, chord in render.progression(rng, 150.0, even=True):
            if chord != NO_CHORD:
                time[chord.quality, chord.root, (chord.bass - chord.root) % 12] += end - start
    qualities, roots = Counter[str](), Counter[int]()
    for (quality, root, _), seconds in time.items():
        qualities[quality] += seconds
        roots[root] += seconds
    expected = {(q.name, root, bass) for q in QUALITIES for root in range(12)
                for bass in ((b - root) % 12 for b in render.inversions(class_index(root, q.name)))}  # fmt: skip
    assert set(time) == expected
    for shares in (qualities, roots):
        mean = sum(shares.values()) / len(shares)
        assert max(shares.values()) < EVEN_WITHIN * mean
        assert min(shares.values()) > mean / EVEN_WITHIN


def test_even_chords_take_each_inversion_alike() -> None:
    rng = np.random.default_rng(0)
    chords = [render.random_chord(rng, even=True) for _ in range(20_000)]
    drawn = Counter((chord.quality, (chord.bass - chord.root) % 12) for chord in chords)
    for quality in QUALITIES:
        counts = [count for (name, _), count in drawn.items() if name == quality.name]
        assert max(counts) < EVEN_WITHIN * min(counts)


# --- tuning ---------------------------------------------------------------------------------------------------------


def single(program: int) -> render.Piece:
    """A4 for three seconds."""
    midi = pretty_midi.PrettyMIDI()
    render.add(render.instrument(midi, program), 69, 0.2, 3.2, 90)
    return render.Piece(midi, [(0.0, 3.5, NO_CHORD)], 3.5)


def pitch(audio: np.ndarray) -> float:
    """Hz of the strongest partial between 400 and 480 Hz, 0.7 to 2.7 s, by a parabola through the spectrum's peak."""
    part = audio[round(0.7 * render.RATE) : round(2.7 * render.RATE)].astype(np.float64)
    size = 1 << 18
    spectrum = np.log(np.abs(np.fft.rfft(part * np.hanning(part.size), size)) + 1e-12)
    first, last = (round(f * size / render.RATE) for f in (400, 480))
    peak = first + int(np.argmax(spectrum[first:last]))
    a, b, c = spectrum[peak - 1 : peak + 2]
    return float((peak + 0.5 * (a - c) / (a - 2 * b + c)) * render.RATE / size)


@needs_synthesizer
@pytest.mark.parametrize("font", [font for font in render.SOUNDFONTS if font.exists()], ids=lambda font: font.stem)
def test_a_tuned_instrument_sounds_at_its_frequency(font: Path) -> None:
    heard, cents = [], -37.0
    for tuning in (0.0, cents):
        piece = single(19)  # a church organ
        render.tune(piece, tuning)
        heard.append(pitch(render.play(piece, np.random.default_rng(0), render.RATE, [font])))
    assert heard[0] == pytest.approx(440.0, rel=0.006), "a soundfont may be out of tune by 10 cents itself"
    assert 1200 * np.log2(heard[1] / heard[0]) == pytest.approx(cents, abs=1.5), "fluidsynth counts whole cents"


@pytest.mark.parametrize("cents", [-50.0, 0.0, 23.0])
def test_tuned_strings_sound_at_their_frequency(cents: float) -> None:
    heard = pitch(render.pluck(single(25), np.random.default_rng(0), render.RATE, cents))
    assert 1200 * np.log2(heard / 440.0) == pytest.approx(cents, abs=10.0), "a string is out of tune by 3 cents or so"


def test_tuning_leaves_drums_as_they_are() -> None:
    piece = single(0)
    render.add_drums(np.random.default_rng(0), piece.midi, np.arange(0.0, 3.0, 0.5))
    render.tune(piece, 30.0)
    assert {bool(track.pitch_bends): track.is_drum for track in piece.midi.instruments} == {True: False, False: True}


# --- labels stay true -----------------------------------------------------------------------------------------------


def rises(audio: np.ndarray, step: int = 110) -> np.ndarray:
    """How much louder each 5 ms are than those before, in log power; falls count as nothing."""
    power = np.square(audio[: audio.size // step * step].reshape(-1, step)).sum(axis=1)
    return np.maximum(np.diff(np.log(power + 1e-4 * power.max())), 0)


@needs_synthesizer
@pytest.mark.parametrize("seed", range(4))
def test_no_effect_moves_the_attacks(seed: int) -> None:
    clean, disturbed = (
        rises(render.sound(held(["C:maj", "N", "A:min", "N", "G:7"], 1.0), np.random.default_rng(seed), effects))
        for effects in (CLEAN, EVERYTHING)
    )
    lags = np.correlate(disturbed, clean, "full")
    assert abs(int(np.argmax(lags)) - (clean.size - 1)) <= 1
