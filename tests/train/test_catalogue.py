from __future__ import annotations

import json
import shutil
import subprocess
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rtchord.chords import NO_CHORD
from rtchord.errors import UserError
from train import catalogue
from train.__main__ import main
from train.catalogue import (
    Entry,
    build,
    find_audio,
    find_jams,
    find_labelled,
    find_mirdata,
    names_in,
    read,
    read_all,
    segments,
    split_of,
)
from train.labels import parse, read_labels
from train.measure import Meter

DEMO = Path(__file__).parents[1] / "data" / "demo.ogg"
RATE = 22050
SECONDS = 14.0


def music(seed: int, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """(n,) float32: random triads of decaying tones, a new one every 0.8 s."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(int(seconds * rate))
    for start in np.arange(0, seconds, 0.8):
        t = np.arange(int(min(0.8, seconds - start) * rate)) / rate
        at = int(start * rate)
        for pitch in 40 + rng.integers(0, 30) + np.array([0, *rng.choice([3, 4, 5, 7, 9], 2, replace=False)]):
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(np.sin(2 * np.pi * frequency * k * t) / k for k in range(1, 6))
            audio[at : at + len(t)] += 0.08 * rng.uniform(0.3, 1) * tone * np.exp(-1.5 * t)
    return audio.astype(np.float32)


def put(path: Path, audio: np.ndarray, rate: int = RATE, **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, **how)
    return path


def made(target: Path, *found: object, hold_out: tuple[Path, ...] = ()) -> dict[str, Entry]:
    """Entries of a catalogue by the name of their files."""
    every = [each for one in found for each in one]  # type: ignore[attr-defined]
    return {entry.audio.name: entry for entry in build(target, every, list(hold_out))}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    for seed, name in enumerate(("one", "two", "three")):
        put(tmp_path / "music" / f"{name}.wav", music(seed))
    return tmp_path / "music"


# --- splits and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("Hey Jude", "The Beatles"), ("hey jude", "beatles")),
        (("Hey Jude", "Beatles, The"), ("Hey Jude (Remastered 2015)", "BEATLES")),
        (("Don't Stop Me Now!", None), ("Dont stop me now", None)),
        (("Café [live]", "various artists"), ("CAFE", None)),
        (("Under Pressure", "Queen feat. David Bowie"), ("Bohemian Rhapsody", "Queen")),
    ],
)
def test_a_song_written_in_two_ways_has_one_split(first: tuple, second: tuple) -> None:
    """Both by their names' one spelling (their splits alone could be the same by chance) and by the split itself."""
    spellings = [
        catalogue.normalise(song if artist in (None, "various artists") else artist) for song, artist in (first, second)
    ]
    assert spellings[0] == spellings[1]
    assert split_of(*first) == split_of(*second)


def test_splits_have_their_shares() -> None:
    counts = Counter(split_of("a song", f"artist {n}") for n in range(4000))
    assert {split: round(count / 4000, 1) for split, count in counts.items()} == pytest.approx(catalogue.SHARES)


def test_splits_stay_what_they_are() -> None:
    """A change here would train on what others test on."""
    artists = {"Cream": "test", "Devo": "test", "Blur": "validation", "ABBA": "validation", "Queen": "train"}
    assert {artist: split_of("Song", artist) for artist in artists} == artists


@pytest.mark.parametrize(
    ("stem", "names"),
    [
        ("Yesterday", ("Yesterday", None)),
        ("01_-_I_Saw_Her_Standing_There", ("I Saw Her Standing There", None)),
        ("07 Yesterday", ("Yesterday", None)),
        ("99 Luftballons", ("99 Luftballons", None)),
        ("Queen - Innuendo", ("Innuendo", "Queen")),
        ("Queen - The Miracle - 03 - I Want It All", ("I Want It All", "Queen")),
        ("005", ("005", None)),
    ],
)
def test_names_are_read_off_a_file_name(stem: str, names: tuple[str, str | None]) -> None:
    assert names_in(stem) == names


def test_a_song_of_two_sets_is_in_one_split(tmp_path: Path) -> None:
    """One set knows the artist, the other does not, and the recordings differ."""
    title = next(f"song{n}" for n in range(99) if split_of(f"song{n}", None) != split_of(f"song{n}", "Someone"))
    put(tmp_path / "a" / f"Someone - {title}.wav", music(0))
    put(tmp_path / "b" / f"{title.upper()}!.wav", music(1))
    entries = made(tmp_path / "c.jsonl", find_audio(tmp_path / "a"), find_audio(tmp_path / "b"))
    assert len({entry.split for entry in entries.values()}) == 1


def test_held_out_songs_are_tested_and_so_are_their_copies(tmp_path: Path, songs: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "Two.lab").touch()
    put(songs / "another name.flac", 0.5 * music(1))
    entries = made(tmp_path / "c.jsonl", find_audio(songs), hold_out=(tmp_path / "dev",))
    assert entries["two.wav"].split == entries["another name.flac"].split == "test"
    assert entries["one.wav"].split == split_of("one", None)


def test_a_hold_out_without_labels_is_refused(tmp_path: Path, songs: Path) -> None:
    with pytest.raises(UserError, match=r"no \.lab under"):
        made(tmp_path / "c.jsonl", find_audio(songs), hold_out=(tmp_path,))


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_catalogue_moves_with_its_folder(tmp_path: Path) -> None:
    put(tmp_path / "here" / "deep" / "song.wav", music(0))
    (tmp_path / "here" / "deep" / "song.lab").write_text("0 5 C:maj\n")
    made(tmp_path / "here" / "c.jsonl", find_labelled(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    (entry,) = read(tmp_path / "there" / "c.jsonl")
    assert entry.audio == tmp_path / "there" / "deep" / "song.wav"
    assert (entry.key, entry.format, segments(entry)) == ("here/deep/song", "lab", [(0.0, 5.0, parse("C"))])


def test_a_bad_line_is_named(tmp_path: Path, songs: Path) -> None:
    target = tmp_path / "c.jsonl"
    made(target, find_audio(songs))
    target.write_text(target.read_text() + '{"key": "x"}\n')
    with pytest.raises(UserError, match=r"c\.jsonl, line 4 is no entry"):
        read(target)


def test_what_was_dropped_is_listed_and_not_used(tmp_path: Path, songs: Path) -> None:
    put(songs / "short.wav", music(9, seconds=3))
    made(tmp_path / "c.jsonl", find_audio(songs))
    assert {e.key for e in read_all(tmp_path / "c.jsonl")} - {e.key for e in read(tmp_path / "c.jsonl")} == {
        "music/short"
    }


def test_keys_are_unique_without_dots_and_stay(tmp_path: Path, songs: Path) -> None:
    put(songs / "v1.0" / "two.wav", music(5))
    first = {e.audio: e.key for e in made(tmp_path / "c.jsonl", find_audio(songs)).values()}
    put(songs / "one.flac", music(6))
    second = {e.audio: e.key for e in made(tmp_path / "c.jsonl", find_audio(songs)).values()}
    assert first.items() <= second.items()
    assert second[songs / "v1.0" / "two.wav"] == "music/v1_0/two"
    assert second[songs / "one.flac"] == "music/one-flac"
    assert len(set(second.values())) == len(second)


# --- reading once -----------------------------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    probe = catalogue.probe

    def counting(path: Path) -> catalogue.Probe:
        names.append(path.name)
        return probe(path)

    monkeypatch.setattr(catalogue, "probe", counting)
    return names


def test_a_grown_folder_is_read_where_it_grew(tmp_path: Path, songs: Path, probed: list[str]) -> None:
    before = made(tmp_path / "c.jsonl", find_audio(songs))
    put(songs / "four.wav", music(4))
    put(songs / "one.wav", music(8, seconds=12))
    probed.clear()
    after = made(tmp_path / "c.jsonl", find_audio(songs))
    assert sorted(probed) == ["four.wav", "one.wav"]
    assert after["two.wav"] == before["two.wav"]
    assert after["one.wav"].seconds == 12.0


def test_a_stopped_run_goes_on(tmp_path: Path, songs: Path, probed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counting = catalogue.probe

    def stopped(path: Path) -> catalogue.Probe:
        if path.name == "three.wav":
            raise KeyboardInterrupt
        return counting(path)

    monkeypatch.setattr(catalogue, "probe", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "c.jsonl", find_audio(songs))
    part = tmp_path / "c.jsonl.part"
    done = len(probed)
    part.write_text(part.read_text() + '\n{"audio": "ha')  # a line that was under way
    probed.clear()
    monkeypatch.setattr(catalogue, "probe", counting)
    assert len(made(tmp_path / "c.jsonl", find_audio(songs))) == 3
    assert (len(probed), part.exists()) == (3 - done, False)


def test_processes_make_the_same_catalogue(tmp_path: Path, songs: Path) -> None:
    one = build(tmp_path / "one.jsonl", find_audio(songs), [], workers=1)
    assert build(tmp_path / "two.jsonl", find_audio(songs), [], workers=2) == one


# --- flaws ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_dropped_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    put(folder / "short.wav", music(0, seconds=4))
    put(folder / "silent.wav", np.concatenate((music(0), np.zeros(20 * RATE, np.float32))))
    (folder / "corrupt.flac").write_bytes(b"fLaC but not really")
    (folder / "corrupt.m4a").write_bytes(b"not really")
    (folder / "empty.mp3").touch()
    with wave.open(str(folder / "long.wav"), "wb") as long:
        long.setparams((1, 1, 4000, 0, "NONE", ""))
        long.writeframes(bytes(4000 * 1900))
    entries = made(tmp_path / "c.jsonl", find_audio(folder))
    reasons = {name: (entry.dropped or "").partition(":")[0] for name, entry in entries.items()}
    assert reasons == {
        "short.wav": "too short", "silent.wav": "silent", "long.wav": "too long",
        "corrupt.flac": "unreadable", "corrupt.m4a": "unreadable", "empty.mp3": "unreadable",
    }  # fmt: skip


def test_clipping_is_noted_and_kept(tmp_path: Path, songs: Path) -> None:
    put(songs / "loud.wav", np.clip(12 * music(5), -1, 1))
    entries = made(tmp_path / "c.jsonl", find_audio(songs))
    assert [note.partition(":")[0] for note in entries["loud.wav"].notes] == ["clipped"]
    assert entries["loud.wav"].dropped is None
    assert entries["one.wav"].notes == ()


def test_opposite_channels_are_no_silence(tmp_path: Path) -> None:
    audio = music(0)
    put(tmp_path / "music" / "wide.wav", np.stack((audio, -audio), axis=1))
    entries = made(tmp_path / "c.jsonl", find_audio(tmp_path / "music"))
    assert entries["wide.wav"].file is not None
    assert entries["wide.wav"].file.measures is not None
    assert entries["wide.wav"].file.measures.silence == 0.0


SPEECH = (
    "The teacher hears the whole song and the student only the past. What the teacher knew afterwards, the student "
    "learns to say now. We shall fight on the beaches, we shall fight on the landing grounds, we shall fight in the "
    "fields and in the streets; we shall never surrender. A recording of somebody who talks has no chord at all."
)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("voice", ["en", "en-us+f3", "de", "fr+m3"])
def test_speech_is_told_from_music(tmp_path: Path, voice: str) -> None:
    path = tmp_path / "talk" / "talk.wav"
    path.parent.mkdir()
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), SPEECH], check=True)
    shutil.copy(DEMO, path.parent)
    put(path.parent / "tones.wav", music(3))
    entries = made(tmp_path / "c.jsonl", find_audio(path.parent))
    assert {name for name, e in entries.items() if (e.dropped or "").startswith("speech-like")} == {"talk.wav"}


def test_measures_do_not_depend_on_the_blocks() -> None:
    audio = np.stack((music(0), music(1)), axis=1)
    whole, pieces = Meter(RATE), Meter(RATE)
    whole.push(audio)
    for start in range(0, len(audio), 997):
        pieces.push(audio[start : start + 997])
    a, b = whole.result(), pieces.result()
    assert a.fingerprint == b.fingerprint
    assert (a.silence, a.clipped, a.sounding) == (b.silence, b.clipped, b.sounding)
    assert (a.modulation, a.tonality) == pytest.approx((b.modulation, b.tonality), abs=1e-3)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_copies_are_found_and_the_labelled_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    audio = music(0)
    put(folder / "a song.wav", audio)
    shutil.copy(folder / "a song.wav", folder / "b same bytes.wav")
    put(folder / "c quiet.flac", 0.2 * audio)
    put(folder / "d coded.ogg", audio)
    put(folder / "e opus.opus", soxr.resample(audio, RATE, 48000), 48000, format="OGG", subtype="OPUS")
    put(folder / "f later.wav", np.concatenate((np.zeros(RATE, np.float32), audio)))
    put(folder / "g coded.mp3", audio)
    put(tmp_path / "true" / "h labelled.ogg", audio)
    (tmp_path / "true" / "h labelled.lab").write_text("0 10 C:maj\n")
    for seed in range(1, 8):
        put(folder / f"other {seed}.wav", music(seed))
    entries = made(tmp_path / "c.jsonl", find_audio(folder), find_labelled(tmp_path / "true"))
    dropped = {name: e.dropped for name, e in entries.items() if e.dropped}
    assert sorted(dropped) == [
        "a song.wav", "b same bytes.wav", "c quiet.flac", "d coded.ogg", "e opus.opus", "f later.wav",
        "g coded.mp3",
    ]  # fmt: skip
    assert {reason for reason in dropped.values() if reason} == {"near-duplicate: the same music as true/h labelled"}
    assert len({entries[name].split for name in [*dropped, "h labelled.ogg"]}) == 1


def test_the_same_bytes_are_called_so(tmp_path: Path, songs: Path) -> None:
    shutil.copy(songs / "one.wav", songs / "z.wav")
    entries = made(tmp_path / "c.jsonl", find_audio(songs))
    assert entries["z.wav"].dropped == "duplicate: the same bytes as music/one"


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("4 9 C:majestic", "is not `start end chord`"),
        ("3 9 C:maj", "overlap or run backwards"),
        ("4 15.5 C:maj", "ends at 15.50 s, after the recording"),
    ],
)
def test_wrong_labels_are_named_by_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    put(tmp_path / "set" / "song.wav", music(0))
    (tmp_path / "set" / "song.lab").write_text(f"0 4 N\n\n{line}\n")
    entry = made(tmp_path / "c.jsonl", find_labelled(tmp_path / "set"))["song.wav"]
    assert entry.dropped is not None
    assert entry.dropped.startswith(f"labels: {tmp_path / 'set' / 'song.lab'}, line 3: ")
    assert reason in entry.dropped


def test_labels_that_end_just_after_the_recording_are_cut(tmp_path: Path) -> None:
    put(tmp_path / "set" / "song.wav", music(0))
    (tmp_path / "set" / "song.lab").write_text("0 4 N\n4 14.4 C:maj\n14.4 14.6 N\n")
    entry = made(tmp_path / "c.jsonl", find_labelled(tmp_path / "set"))["song.wav"]
    assert (entry.dropped, entry.notes) == (None, ("labels cut: they end 0.60 s after the recording",))
    assert segments(entry) == [(0.0, 4.0, NO_CHORD), (4.0, SECONDS, parse("C"))]


def test_labels_with_faults_of_one_reading_are_mended_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As annotations are distributed: a byte order mark, CRLF, commas, a row of no length, an overlap."""
    put(tmp_path / "set" / "song.wav", music(0))
    text = "\ufeff0.0,4.1,N\r\n4.0,4.0,G:7\r\n4.0,14.4,C:maj\r\n"
    (tmp_path / "set" / "song.lab").write_bytes(text.encode())
    assert main(["catalogue", str(tmp_path / "c.jsonl"), "--labelled", str(tmp_path / "set")]) == 0
    (entry,) = read(tmp_path / "c.jsonl")
    mended = (
        "labels mended: byte order mark (1), overlap (1), row of no length (1), "
        "row with commas, semicolons or quotes (3)"
    )
    assert entry.notes == (mended, "labels cut: they end 0.40 s after the recording")
    assert segments(entry) == [(0.0, 4.0, NO_CHORD), (4.0, SECONDS, parse("C"))]
    told = capsys.readouterr()
    assert f"set/song: {mended}" in told.err.splitlines()
    assert ["labels", "mended", "1", "kept"] in [line.split() for line in told.out.splitlines()]


def test_a_recording_whose_labels_are_missing_is_dropped(tmp_path: Path, songs: Path) -> None:
    (songs / "one.lab").write_text("0 5 C:maj\n")
    entries = made(tmp_path / "c.jsonl", find_labelled(songs))
    assert [name for name, e in entries.items() if e.dropped is None] == ["one.wav"]
    assert "two.lab" in (entries["two.wav"].dropped or "")


def test_an_entry_without_labels_has_no_segments(tmp_path: Path, songs: Path) -> None:
    entry = made(tmp_path / "c.jsonl", find_audio(songs))["one.wav"]
    with pytest.raises(UserError, match="music/one has no labels"):
        segments(entry)


def jams_file(path: Path, chords: list[tuple[float, float, str]], namespace: str = "chord") -> None:
    data = [{"time": a, "duration": b - a, "value": label, "confidence": None} for a, b, label in chords]
    beats = {"namespace": "beat", "data": [], "annotation_metadata": {}, "sandbox": {}}
    chords_ = {"namespace": namespace, "data": data, "annotation_metadata": {}, "sandbox": {}}
    about = {"title": "A Title", "artist": "Someone", "duration": SECONDS}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"annotations": [beats, chords_], "file_metadata": about, "sandbox": {}}))


@pytest.mark.parametrize("namespace", ["chord", "chord_harte"])
def test_jams_beside_a_recording_are_read(tmp_path: Path, namespace: str) -> None:
    put(tmp_path / "set" / "song.wav", music(0))
    jams_file(tmp_path / "set" / "song.jams", [(0.0, 4.0, "N"), (4.0, 9.0, "A:min/b3")], namespace)
    entry = made(tmp_path / "c.jsonl", find_jams(tmp_path / "set"))["song.wav"]
    assert (entry.dropped, entry.format, entry.song, entry.artist) == (None, "jams", "A Title", "Someone")
    assert segments(entry) == [(0.0, 4.0, NO_CHORD), (4.0, 9.0, parse("A:min/b3"))]


def test_a_wrong_observation_of_jams_is_named(tmp_path: Path) -> None:
    jams_file(tmp_path / "x.jams", [(0.0, 4.0, "N"), (4.0, 9.0, "H")])
    with pytest.raises(UserError, match=r"x\.jams, observation 2: .*is not `start end chord`"):
        read_labels(tmp_path / "x.jams")


def test_jams_are_mended_as_lab_files_are(tmp_path: Path) -> None:
    jams_file(tmp_path / "x.jams", [(0.0, 4.05, "n"), (4.0, 4.0, "G"), (4.0, 9.0, "C")])
    found = read_labels(tmp_path / "x.jams")
    assert found.segments == [(0.0, 4.0, NO_CHORD), (4.0, 9.0, parse("C"))]
    assert found.mended == {"label in the wrong case": 1, "row of no length": 1, "overlap": 1}


@pytest.mark.parametrize("text", ["no json", "[]", '{"annotations": []}', '{"annotations": [{"namespace": "beat"}]}'])
def test_jams_without_chords_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jams").write_text(text)
    with pytest.raises(UserError, match=r"x\.jams"):
        read_labels(tmp_path / "x.jams")


# --- mirdata ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def beatles(tmp_path: Path) -> Path:
    """Two of three songs of a set in mirdata's layout, one of them in a format of the user's own."""
    pytest.importorskip("mirdata")
    folder = tmp_path / "Beatles"
    index = {}
    for number, title in enumerate(("01_-_Help!", "02_-_Something", "03_-_Missing")):
        stem = f"The Beatles/Album/{title}"
        paths = {
            "audio": f"audio/{stem}.wav", "beat": None, "keys": None,
            "chords": f"annotations/chordlab/{stem}.lab", "sections": f"annotations/seglab/{stem}.lab",
        }  # fmt: skip
        index[f"0{number}"] = {name: [path, None] for name, path in paths.items()}
        lab = folder / str(paths["chords"])
        lab.parent.mkdir(parents=True, exist_ok=True)
        lab.write_text("0.000000 2.000000 N\n2.000000 9.000000 A:min\n")
    put(folder / "audio/The Beatles/Album/01_-_Help!.wav", music(0))
    put(folder / "audio/The Beatles/Album/02_-_Something.flac", music(1))
    (folder / "beatles_index_1.2.json").write_text(json.dumps({"version": "1.2", "tracks": index}))
    return folder


def test_a_set_of_mirdata_is_listed_with_its_annotations(tmp_path: Path, beatles: Path) -> None:
    entries = made(tmp_path / "c.jsonl", find_mirdata(f"beatles:{beatles}", download=False))
    assert {(e.song, e.artist, e.source) for e in entries.values()} == {
        ("Help!", "The Beatles", "mirdata:beatles"),
        ("Something", "The Beatles", "mirdata:beatles"),
    }
    entry = entries["02_-_Something.flac"]
    assert segments(entry) == [(0.0, 2.0, NO_CHORD), (2.0, 9.0, parse("A:min"))]
    assert entry.split == split_of("anything", "beatles")


def test_annotations_are_not_downloaded_unless_asked_for(beatles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mirdata.core

    asked: list[object] = []
    monkeypatch.setattr(mirdata.core.Dataset, "download", lambda _, partial_download: asked.append(partial_download))
    list(find_mirdata(f"beatles:{beatles}", download=False))
    assert asked == []
    list(find_mirdata(f"beatles:{beatles}", download=True))
    assert asked == [["annotations"]]


def test_every_loader_is_one_of_mirdatas_with_those_downloads() -> None:
    mirdata = pytest.importorskip("mirdata")
    for name, loader in catalogue.LOADERS.items():
        remotes = mirdata.initialize(name, data_home="nowhere").remotes
        assert set(loader.downloads) <= set(remotes), name
        assert not any("audio" in download for download in loader.downloads)


def test_a_set_without_its_list_of_files_says_how_to_get_it(
    tmp_path: Path, beatles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mirdata.core

    monkeypatch.setattr(mirdata.core.Index, "get_path", lambda _: str(tmp_path / "nowhere.json"))
    with pytest.raises(UserError, match=r"cannot list beatles: .* --download-annotations"):
        list(find_mirdata(f"beatles:{beatles}", download=False))


@pytest.mark.parametrize("spec", ["beatles", "abba:folder", ":folder"])
def test_an_unknown_set_is_refused_with_those_that_are_known(spec: str) -> None:
    with pytest.raises(UserError, match="NAME:FOLDER with a NAME of beatles, billboard"):
        list(find_mirdata(spec, download=False))


def test_a_set_without_recordings_says_where_they_belong(beatles: Path) -> None:
    shutil.rmtree(beatles / "audio")
    with pytest.raises(UserError, match=r"none of the 3 recordings of beatles is under .*audio/The Beatles"):
        list(find_mirdata(f"beatles:{beatles}", download=False))


# --- formats and the command ------------------------------------------------------------------------------------------


def test_m4a_is_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    from train.audio import read as read_audio

    audio = music(0)
    (tmp_path / "music").mkdir()
    with av.open(str(tmp_path / "music" / "song.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
        container.metadata["title"] = "A Title"
    back, rate = read_audio(tmp_path / "music" / "song.m4a")
    assert rate == RATE
    assert len(back) == pytest.approx(len(audio), abs=3000)
    put(tmp_path / "music" / "song.wav", audio)
    entries = made(tmp_path / "c.jsonl", find_audio(tmp_path / "music"))
    assert entries["song.m4a"].dropped == "near-duplicate: the same music as music/song-wav"


def test_tags_name_a_song(tmp_path: Path) -> None:
    path = put(tmp_path / "music" / "track.flac", music(0))
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC") as file:
        file.title, file.artist = "A Title", "Someone"
        file.write(music(0))
    entry = made(tmp_path / "c.jsonl", find_audio(tmp_path / "music"))["track.flac"]
    assert (entry.song, entry.artist) == ("A Title", "Someone")


def test_the_command_prints_a_table_and_tells_of_every_problem(
    tmp_path: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(songs / "short.wav", music(9, seconds=3))
    assert main(["catalogue", str(tmp_path / "c.jsonl"), "--audio", str(songs)]) == 0
    out, err = capsys.readouterr()
    assert "music/short: too short: 3.0 s, less than 10" in err
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["source", "kept", "hours", "labelled", "dropped", "train", "validation", "test"]
    assert rows[1][:5] == ["audio", "3", "0.01", "0", "1"]
    assert ["too", "short", "1", "dropped"] in rows


@pytest.mark.parametrize("arguments", [[], ["--audio", "nowhere"]])
def test_a_catalogue_of_nothing_is_refused(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["catalogue", str(tmp_path / "c.jsonl"), *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
