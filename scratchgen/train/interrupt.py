"""Stopping a training by SIGINT (Ctrl-C) or SIGTERM, after the current step."""

import contextlib
import signal
import threading


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after writing a checkpoint into the run folder ``path``."""

    def __init__(self, path, signal_number):
        super().__init__(f"stopped; the checkpoint is in {path}")
        self.path = path
        self.signal_number = signal_number


@contextlib.contextmanager
def stop_requests():
    """Yields a list, empty until SIGINT or SIGTERM arrives and its number is appended.

    The handler only records the signal: an exception raised there could interrupt the update of the
    parameters and leave half a step. It also restores the default handlers, so that a second signal
    ends the process at once; the checkpoint on disk stays intact. Only the main thread receives
    signals; in any other thread the list stays empty.
    """
    requests = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def record(number, frame):
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        requests.append(number)

    previous = {each: signal.signal(each, record) for each in signals}
    try:
        yield requests
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler if handler is not None else signal.SIG_DFL)
