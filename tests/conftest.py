"""Signals as a terminal leaves them; property tests that a busy machine delays and does not fail.

Under nohup, or as a background job of a script, SIGHUP or SIGINT come to the tests ignored. Programs started by them
would inherit that, and rtchord respects what its parent chose to ignore.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
