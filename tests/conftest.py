"""Signals as a terminal leaves them.

Under nohup, or as a background job of a script, SIGHUP or SIGINT come to the tests ignored. Programs started by them
would inherit that, and rtchord respects what its parent chose to ignore.
"""

import signal

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
