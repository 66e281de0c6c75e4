"""What all tests share: Ctrl-C works, also for the processes that tests start and interrupt.

A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
"""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
