"""Chords as MIDI messages: pure functions and the tables they read. `rtchord.outputs.midi` is the port.

    status  data                                    meaning
    8c      note 00                                 note off; c = channel, counted from 0
    9c      note velocity                           note on
    Bc      76 mask, 75 mask                        TC-Helicon: pitch classes C..E and F..B
    Bc      7B 00                                   all notes off
    F0      43 7E 02 root type bass basstype F7     Yamaha Chord Control, type 1

Most instruments and harmonisers read the notes: those of the chord on one channel, in close root position, the third
always among them, the bass below. All note-offs and note-ons of a change go out back to back, because receivers that
sample the held notes re-voice on every gap. Notes are released one by one before CC 123, which much hardware ignores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rtchord.chords import NO_BASS, QUALITIES, Chord, lead_sheet, pitch_classes

NOTE_OFF, NOTE_ON, CONTROL_CHANGE = 0x80, 0x90, 0xB0
SUSTAIN, ALL_SOUND_OFF, ALL_NOTES_OFF = 64, 120, 123
CHANNELS, NOTES = 16, 128
OCTAVE = 3  # of the roots where nothing else is asked for: 48..59
SOFTEST, LOUDEST = 40, 127  # velocities of confidence 0 and 1; softer notes are lost on many patches

# Voicing -> whether the bass is among the notes, and how many tones of the chord from the root up.
VOICINGS = {"full": (True, 4), "bass+triad": (True, 3), "triad": (False, 3), "root": (False, 1)}

# TC-Helicon VoiceLive: controller -> the pitch classes of its bits, lowest bit first.
HELICON = {118: (4, 3, 2, 1, 0), 117: (11, 10, 9, 8, 7, 6, 5)}

# fmt: off
YAMAHA_TYPES = {
    "maj": 0x00, "min": 0x08, "dim": 0x11, "aug": 0x07, "min6": 0x09, "maj6": 0x01, "min7": 0x0A, "minmaj7": 0x0F,
    "maj7": 0x02, "7": 0x13, "dim7": 0x12, "hdim7": 0x0B, "sus2": 0x21, "sus4": 0x20,
}
# fmt: on
YAMAHA_LETTERS = {letter: code for code, letter in enumerate("CDEFGAB", 1)}
YAMAHA_SIGNS = {"b": 0x20, "": 0x30, "#": 0x40}
YAMAHA_NOTHING = 0x7F  # no bass beside the root
YAMAHA_CANCEL = bytes((0x31, 0x22, 0x7F, 0x7F))  # readers ask for a root that exists, so C

Message = bytes


def voicing(chord: Chord, kind: str = "full", octave: int = OCTAVE) -> tuple[int, ...]:
    """MIDI notes, lowest first: the bass if `kind` has one, then tones in close root position.

    `kind`: a key of VOICINGS. The root lies in `octave`, from note 12 * (octave + 1), the bass in the one below; all
    are in 0..127 for octaves 0..7. Empty for N and X.
    """
    if chord.root < 0:
        return ()
    with_bass, count = VOICINGS[kind]
    lowest = 12 * (octave + 1)
    tones = tuple(lowest + chord.root + tone for tone in QUALITIES[chord.index % len(QUALITIES)].tones[:count])
    bass = chord.root if chord.bass == NO_BASS else chord.bass
    return (lowest - 12 + bass, *tones) if with_bass else tones


def velocity(confidence: float) -> int:
    """Note-on velocity: linear from SOFTEST at confidence 0 to LOUDEST at 1."""
    share = min(max(confidence, 0.0), 1.0) if confidence == confidence else 0.0
    return round(SOFTEST + share * (LOUDEST - SOFTEST))


def change(
    sounding: Sequence[int], new: Sequence[int], channel: int, velocity: int, tie: bool = False
) -> Iterator[Message]:
    """Messages that turn the notes `sounding` into `new`; `channel` counts from 0.

    With `tie` the notes that both have sound on. Where both are the same, nothing is struck again in either way: what
    changed is then not among the notes.
    """
    kept = set(sounding) & set(new) if tie or list(sounding) == list(new) else set()
    for note in sounding:
        if note not in kept:
            yield bytes((NOTE_OFF | channel, note, 0))
    for note in new:
        if note not in kept:
            yield bytes((NOTE_ON | channel, note, velocity))


def release(sounding: Sequence[int], channel: int) -> Iterator[Message]:
    """Messages that end every note: one by one, then CC 123; `channel` counts from 0."""
    yield from change(sounding, (), channel, 0)
    yield bytes((CONTROL_CHANGE | channel, ALL_NOTES_OFF, 0))


def panic() -> Iterator[Message]:
    """Messages that silence any instrument, whatever it was sent before and by whom.

    On each channel: every note off by itself, the sustain pedal up, all notes off, all sound off.
    """
    for channel in range(CHANNELS):
        for note in range(NOTES):
            yield bytes((NOTE_OFF | channel, note, 0))
        for controller in (SUSTAIN, ALL_NOTES_OFF, ALL_SOUND_OFF):
            yield bytes((CONTROL_CHANGE | channel, controller, 0))


def yamaha_chord(chord: Chord, sharps: int) -> bytes:
    """Yamaha's four bytes of a chord: root, type, bass, type of the bass. N and X cancel the chord.

    `sharps`: spelling, see `rtchord.chords`. Chord Control and the XF meta event of MIDI files share them.
    """
    if chord.root < 0:
        return YAMAHA_CANCEL
    name, _, bass = lead_sheet(chord, sharps).partition("/")
    root = name[:2] if name[1:2] in ("b", "#") else name[:1]
    on_bass = _yamaha_note(bass) if bass else YAMAHA_NOTHING
    return bytes((_yamaha_note(root), YAMAHA_TYPES[chord.quality], on_bass, YAMAHA_NOTHING))


def _yamaha_note(name: str) -> int:
    return YAMAHA_SIGNS[name[1:]] | YAMAHA_LETTERS[name[0]]


def yamaha_control(chord: Chord, sharps: int) -> Message:
    """Yamaha Chord Control, type 1."""
    return bytes((0xF0, 0x43, 0x7E, 0x02, *yamaha_chord(chord, sharps), 0xF7))


def helicon(chord: Chord, channel: int) -> Iterator[Message]:
    """The two TC-Helicon controllers with the chord's pitch classes, none for N and X; `channel` counts from 0."""
    tones = pitch_classes(chord.index)
    for controller, bits in HELICON.items():
        mask = sum(1 << bit for bit, tone in enumerate(bits) if tone in tones)
        yield bytes((CONTROL_CHANGE | channel, controller, mask))
