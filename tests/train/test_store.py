from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from rtchord.cqt import DEFINITIONS, Features
from rtchord.errors import UserError
from train import store

ROOT = Path(__file__).parents[2]


def track(seed: int = 9, frames: int = 7, soft: bool = False) -> store.Track:
    rng = np.random.default_rng(seed)
    made: store.Track = {
        "features": rng.standard_normal((frames, 144)).astype(np.float16),
        "class_index": rng.integers(-1, 170, frames).astype(np.int16),
        "bass_index": rng.integers(-1, 13, frames).astype(np.int8),
    }
    if soft:
        made["classes"] = rng.dirichlet(np.ones(170), frames).astype(np.float16)
        made["bass"] = rng.dirichlet(np.ones(13), frames).astype(np.float16)
        made["embedding"] = rng.standard_normal((1, 8)).astype(np.float16)
    return made


def fill(folder: Path, names: str, process: int = 0, frames: int = 7) -> None:
    with store.Writer(folder, process) as writer:
        for name in names:
            writer.write(name, {"live": track(ord(name), frames)}, {"seconds": 0.16})


def names_in(folder: Path) -> list[str]:
    """Every member of every shard, in the order they stand in."""
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            found += tar.getnames()
    return found


def same(one: store.Track, other: store.Track) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


# --- the format -------------------------------------------------------------------------------------------------------


def test_a_shard_is_a_tar_of_safetensors_with_the_mark_of_a_sample_last(tmp_path: Path) -> None:
    tracks = {"live": track(1, soft=True), "librosa-0.11": track(2)}
    with store.Writer(tmp_path, process=3) as writer:
        writer.write("album/one", tracks, {"song": "One", "seconds": 0.16})
    (shard,) = tmp_path.iterdir()
    assert shard.name == "00003-000000.tar"
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        members = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert names == ["album/one.live.safetensors", "album/one.librosa-0.11.safetensors", "album/one.json"]
    assert json.loads(members["album/one.json"]) == {"key": "album/one", "song": "One", "seconds": 0.16}
    for name, made in tracks.items():
        data = members[f"album/one.{name}.safetensors"]
        assert same(load(data), made)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert Features.model_validate_json(header["__metadata__"]["features"]) == DEFINITIONS[name]


def test_the_webdataset_package_reads_a_shard(tmp_path: Path) -> None:
    import webdataset

    fill(tmp_path, "ab")
    samples = list(webdataset.WebDataset(str(next(tmp_path.glob("*.tar"))), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["a", "b"]
    assert [json.loads(sample["json"])["key"] for sample in samples] == ["a", "b"]
    assert same(load(samples[1]["live.safetensors"]), track(ord("b")))


def test_tracks_are_read_back_bit_for_bit_sorted_by_key(tmp_path: Path) -> None:
    fill(tmp_path / "first", "db")
    fill(tmp_path / "second", "ca")
    opened = store.open_tracks([tmp_path / "first", tmp_path / "second"], "live")
    assert [piece.key for piece in opened] == list("abcd")
    assert all(same(piece.track, track(ord(piece.key))) for piece in opened)
    assert opened[0].about == {"key": "a", "seconds": 0.16}


def test_tensors_are_mapped_from_the_shard_and_cannot_be_written(tmp_path: Path) -> None:
    with store.Writer(tmp_path) as writer:
        writer.write("a", {"live": track(soft=True)}, {})
    for array in store.open_tracks([tmp_path], "live")[0].track.values():
        assert not array.flags.writeable
        base: Any = array
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)


def test_a_view_with_strides_is_read_back_as_it_looks(tmp_path: Path) -> None:
    view = track()["features"][::2, ::-1]
    with store.Writer(tmp_path) as writer:
        writer.write("a", {"live": {"features": view}}, {})
    assert np.array_equal(store.open_tracks([tmp_path], "live")[0].track["features"], view)


def test_names_that_tar_finds_long_or_foreign_are_kept(tmp_path: Path) -> None:
    key = "Ärzte, die/" + 30 * "long name " + "日本"
    with store.Writer(tmp_path) as writer:
        writer.write(key, {"live": track()}, {})
    assert store.keys(tmp_path) == {key}
    assert store.open_tracks([tmp_path], "live")[0].key == key


def test_a_share_is_every_nth_piece(tmp_path: Path) -> None:
    fill(tmp_path, "abcde")
    shares = [[piece.key for piece in store.open_tracks([tmp_path], "live", (rank, 2))] for rank in (0, 1)]
    assert shares == [["a", "c", "e"], ["b", "d"]]


@pytest.mark.parametrize("name", ["a.b/01. Song.mp3", "tab\tand\nline", "lone \udcff byte", "/from/root", "..", ""])
def test_any_name_becomes_a_key_of_its_own(tmp_path: Path, name: str) -> None:
    key = store.key_of(name)
    assert key != store.key_of(name.replace(".", "_") + "_")
    assert "." not in key
    with store.Writer(tmp_path) as writer:
        writer.write(key, {"live": track()}, {})
    assert store.keys(tmp_path) == {key}


def test_a_plain_name_is_its_own_key() -> None:
    assert store.key_of("beatles/01 - Help!") == "beatles/01 - Help!"
    assert store.key_of("song.wav") != store.key_of("song_wav") != store.key_of("song.flac")


# --- shards -----------------------------------------------------------------------------------------------------------


def test_a_full_shard_is_followed_by_the_next(tmp_path: Path) -> None:
    with store.Writer(tmp_path, limit_mb=1) as writer:
        for name in "abc":  # 0.7 MB each
            writer.write(name, {"live": track(ord(name), frames=2500)}, {})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["00000-000000.tar", "00000-000001.tar.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000-000000.tar", "00000-000001.tar"]
    assert store.keys(tmp_path) == set("abc")


def test_a_second_writer_begins_after_the_shards_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    fill(tmp_path, "b")
    fill(tmp_path, "c", process=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00000-000000.tar", "00000-000001.tar", "00001-000000.tar",
    ]  # fmt: skip
    assert store.keys(tmp_path) == set("abc")


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with store.Writer(tmp_path / "new"):
        pass
    assert store.keys(tmp_path / "new") == set()
    assert not list(tmp_path.rglob("*.tar*"))


def test_an_error_among_the_samples_ends_the_shard(tmp_path: Path) -> None:
    def broken() -> None:
        with store.Writer(tmp_path) as writer:
            writer.write("a", {"live": track()}, {})
            writer.write("b", {"live": {"no such tensor": np.zeros(3)}}, {})

    with pytest.raises(KeyError, match="no such tensor"):
        broken()
    assert names_in(tmp_path) == ["a.live.safetensors", "a.json"]
    assert not list(tmp_path.glob("*.part"))


def test_a_shard_cut_anywhere_is_recovered_to_its_last_whole_sample(tmp_path: Path) -> None:
    writer = store.Writer(tmp_path / "whole")
    ends = [0]
    for name in "abc":
        writer.write(name, {"live": track(ord(name), frames=2), "live-vq": track(0, frames=1)}, {})
        (part,) = (tmp_path / "whole").glob("*.part")
        ends.append(part.stat().st_size)
    data = part.read_bytes()
    writer.close()
    cuts = {*range(0, len(data), 211), *(end + more for end in ends for more in (-1, 0, 1))}
    for cut in sorted(cut for cut in cuts if 0 <= cut <= len(data)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "00000-000000.tar.part").write_bytes(data[:cut])
        store.recover(folder)
        whole = "abc"[: sum(end <= cut for end in ends[1:])]
        assert store.keys(folder) == set(whole), cut
        assert [path.name for path in folder.iterdir()] == (["00000-000000.tar"] if whole else [])


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.train.test_store import track
from train import store
real, written = os.write, 0
def half(file, data):
    global written
    written += 1
    if written == 2 * 2 + int(sys.argv[2]):  # two samples of two members each, then so many
        real(file, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(file, data)
store.os.write = half
with store.Writer(Path(sys.argv[1])) as writer:
    for name in "abcd":
        writer.write(name, {"live": track(ord(name), frames=2000)}, {})
"""


@pytest.mark.parametrize("member", [1, 2], ids=["tensors", "mark"])
def test_a_writer_killed_in_the_middle_of_a_write_loses_that_sample_alone(tmp_path: Path, member: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(member)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert store.keys(tmp_path) == set(), "nothing has its name yet"
    store.recover(tmp_path)
    assert store.keys(tmp_path) == {"a", "b"}
    fill(tmp_path, "c")
    assert names_in(tmp_path) == [f"{name}.{kind}" for name in "abc" for kind in ("live.safetensors", "json")]
    assert same(store.open_tracks([tmp_path], "live")[1].track, track(ord("b"), frames=2000))


def test_a_full_disk_leaves_whole_shards_and_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 60_000
    real = os.write

    def write(file: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real(file, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr(store.os, "write", write)
    with pytest.raises(UserError, match=r"cannot write 'c'.*No space left on device.*make room"):
        fill(tmp_path, "abcd", frames=80)  # 0.03 MB each
    assert [path.name for path in tmp_path.iterdir()] == ["00000-000000.tar"]
    assert names_in(tmp_path) == ["a.live.safetensors", "a.json", "b.live.safetensors", "b.json"]
    assert store.keys(tmp_path) == {"a", "b"}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_without_shards_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="python -m train label"):
        store.open_tracks([tmp_path / "nowhere"], "live")


def test_features_that_nobody_defined_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no features 'loud'; there are live,"):
        store.open_tracks([tmp_path], "loud")


def test_features_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(UserError, match=r"'a' .* no features 'librosa-0.11', only live; .*--features librosa-0.11"):
        store.open_tracks([tmp_path], "librosa-0.11")


def test_features_whose_definition_has_changed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a")
    monkeypatch.setitem(store.DEFINITIONS, "live", Features(hop=256))
    with pytest.raises(UserError, match=r"'a' .* was made with another definition of 'live'"):
        store.open_tracks([tmp_path], "live")


def damaged_at(shard: Path, first: int, junk: bytes) -> None:
    data = bytearray(shard.read_bytes())
    data[first : first + len(junk)] = junk
    shard.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: shard.write_bytes(b"junk"),
        lambda shard: shard.write_bytes(b""),
        lambda shard: os.truncate(shard, 3000),
        lambda shard: os.truncate(shard, shard.stat().st_size - store.END),
        lambda shard: damaged_at(shard, 0, bytes(range(200))),
        lambda shard: damaged_at(shard, shard.read_bytes().index(b"a.json"), bytes(range(200))),
    ],
    ids=["no tar", "empty", "cut", "cut between samples", "first header", "second header"],
)
def test_a_damaged_shard_is_named(tmp_path: Path, damage: Any) -> None:
    fill(tmp_path, "ab")
    damage(tmp_path / "00000-000000.tar")
    for read in (lambda: store.keys(tmp_path), lambda: store.open_tracks([tmp_path], "live")):
        with pytest.raises(UserError, match=r"00000-000000\.tar.*is damaged.*delete it"):
            read()


@pytest.mark.parametrize("data", [b"", b"junk", (2).to_bytes(8, "little") + b"{}", (9**9).to_bytes(8, "little")])
def test_a_member_that_is_no_safetensors_is_named(tmp_path: Path, data: bytes) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in (("a.live.safetensors", data), ("a.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match=r"0\.tar.*is damaged .*a\.live\.safetensors"):
        store.open_tracks([tmp_path], "live")
