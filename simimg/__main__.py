"""The `simimg` command, also as `python -m simimg`."""

import signal
import sys


def main() -> int:
    """Run one command and return its exit code; an interruption at any moment ends without a traceback.

    While modules are imported, and after the command, the signal itself ends the process, as it ends programs in C.
    """
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it is ignored in the background
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from simimg import cli

    try:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main()
    except KeyboardInterrupt:  # while it is reported
        return 130
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
