# make demo   recognise the bundled recording in real time
# make test   install what the tests need, check, run the tests
# make ardour a DAW records the chords (Debian package: ardour)
# make check  lint, types, and the wheel in an empty environment
# make figures DATA=FOLDER   measure everything in docs/benchmarks.md again
# make soak   half an hour of live sessions over JACK, and ten hours of audio as fast as it goes
# make clean  remove what the others made

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN = .venv/bin
DEMO = tests/data/demo.ogg
SOURCES = pyproject.toml README.md LICENSE $(shell find rtchord -type f ! -path '*/__pycache__/*')

# Debian packages that the tests need: a JACK server and its tools, PortAudio, oscdump, a synthesizer and its sounds,
# a voice, a terminal, SuperCollider's language, PulseAudio with the plugin that PortAudio reaches it by, system calls.
PACKAGES = jackd2 libportaudio2 liblo-tools fluidsynth fluid-soundfont-gm timgm6mb-soundfont espeak-ng tmux \
	supercollider-language pulseaudio pulseaudio-utils libasound2-plugins strace
APT = DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3

.PHONY: demo test ardour soak check figures system clean

demo: .venv/run
	$(BIN)/rtchord listen --input $(DEMO) --realtime --no-midi

test: system check
	$(BIN)/python -m pytest

ardour: system .venv/dev
	$(BIN)/python -m pytest tests/ardour.py

soak: system .venv/dev
	$(BIN)/python -m benchmarks soak --output benchmarks/results/soak.json

check: .venv/dev build/wheel-works
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a user gets: the wheel in an environment of its own, run from an empty directory.
build/wheel-works: .venv/pip $(SOURCES) $(DEMO)
	rm -rf build
	$(BIN)/pip -q wheel --no-deps -w build/wheel .
	$(PYTHON) -m venv build/venv
	build/venv/bin/pip -q install build/wheel/*.whl
	build/venv/bin/python -c "from importlib.util import find_spec; assert not find_spec('torch')"
	mkdir build/empty
	cd build/empty && ../venv/bin/rtchord --help >/dev/null
	cd build/empty && ../venv/bin/rtchord listen --input ../../$(DEMO) --no-realtime --format jsonl >../events.jsonl
	build/venv/bin/python -c "import json; assert [json.loads(line)['chord'] for line in open('build/events.jsonl')]"
	touch $@

figures: .venv/dev
	nice $(BIN)/python -m benchmarks all $(DATA)
	$(BIN)/python -m benchmarks report

system:
	@if ! command -v apt-get >/dev/null; then echo "No apt-get here; some tests need: $(PACKAGES)"; \
	elif dpkg -s $(PACKAGES) >/dev/null 2>&1; then true; \
	elif [ "$$(id -u)" != 0 ]; then echo "Not root; some tests need: apt-get install $(PACKAGES)"; \
	else $(APT) update && $(APT) install -y --no-install-recommends $(PACKAGES); fi

.venv/pip:
	$(PYTHON) -m venv .venv
	touch $@

.venv/run: .venv/pip pyproject.toml
	$(BIN)/pip -q install -e .
	touch $@

.venv/dev: .venv/pip pyproject.toml
	$(BIN)/pip -q install $(TORCH)
	$(BIN)/pip -q install -e ".[dev]"
	-$(BIN)/pip -q install -e ".[openvino,tensorrt-rtx]"  # large and optional: their tests are skipped without
	touch $@ .venv/run

clean:
	rm -rf .venv build *.egg-info
