-- Ardour without a window: records what rtchord:chords sends on a MIDI track. From the environment: SESSION, a folder
-- that does not exist yet, and SECONDS. Says `rolling` when it records and `done` when all is saved.
local backend = AudioEngine:set_backend("JACK", "ardour", "")
assert(backend and not backend:isnil(), "no JACK backend")
assert(AudioEngine:start(false) == 0, "the engine does not start")
s = create_session(os.getenv("SESSION"), "chords", backend:sample_rate())
assert(s, "no session")

local midi = ARDOUR.ChanCount(ARDOUR.DataType("midi"), 1)
local tracks = Session:new_midi_track(midi, midi, true, ARDOUR.PluginInfo(), nil, nil, 1, "chords",
    ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, false, true)
for track in tracks:iter() do
    assert(track:input():nth(0):connect("rtchord:chords") == 0, "cannot connect")
    track:rec_enable_control():set_value(1, PBD.GroupControlDisposition.NoGroup)
end

Session:maybe_enable_record(false)
Session:request_roll(ARDOUR.TransportRequestSource.TRS_UI)
print("rolling")
io.stdout:flush()
sleep(tonumber(os.getenv("SECONDS")))
Session:request_stop(false, false, ARDOUR.TransportRequestSource.TRS_UI)
sleep(1)
Session:save_state("", false, false, false, false, false)
close_session()
print("done")
io.stdout:flush()
quit()
