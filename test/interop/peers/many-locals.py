"""Starts several udp-locals in one process, one on each thread, until all have a session: many-locals.py COUNT ROUNDS CONFIG"""

import ctypes
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../examples/python"))
import association as underpass  # noqa: E402

WAIT_S = 60


def main(count, rounds, config):
    library = underpass.load()
    for _ in range(rounds):
        up = threading.Semaphore(0)
        session_up = underpass.Event(lambda data, up=up: up.release())
        unreachable = underpass.Failure(lambda data, status, text: print(text.decode(), file=sys.stderr))
        size = ctypes.sizeof(underpass.Callbacks)
        callbacks = underpass.Callbacks(size=size, session_up=session_up, unreachable=unreachable)
        size = ctypes.sizeof(underpass.LocalOptions)
        options = underpass.LocalOptions(size=size, listen=b"", config=config.encode())
        locals_ = [ctypes.c_void_p() for _ in range(count)]
        for local in locals_:
            if library.underpass_local_start(options, callbacks, None, ctypes.byref(local)) != 0:
                sys.exit(library.underpass_error_text().decode())
        for _ in locals_:
            if not up.acquire(timeout=WAIT_S):
                sys.exit("no session")
        for local in locals_:
            library.underpass_local_free(local)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
