"""Sends a datagram through a tunnel and prints the answer, using ctypes: association.py SERVER:PORT PSK TARGET TEXT

Loads the library from the system's paths, or from the file that UNDERPASS_LIBRARY names.
"""

import ctypes
import ctypes.util
import os
import sys
import threading
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_size_t, c_ssize_t, c_uint, c_void_p

WAIT_S = 20


class Addresses(Structure):
    _fields_ = [("size", c_size_t), ("listen", POINTER(c_char_p)), ("listen_count", c_size_t), ("socks5", c_char_p)]


Ready = CFUNCTYPE(None, c_void_p, POINTER(Addresses))
Event = CFUNCTYPE(None, c_void_p)
Failure = CFUNCTYPE(None, c_void_p, c_int, c_char_p)
Log = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_char_p)
Stopped = CFUNCTYPE(None, c_void_p, c_int)


class Callbacks(Structure):
    """The fields up to `stopped`: a struct may end before fields of later versions."""

    _fields_ = [
        ("size", c_size_t),
        ("ready", Ready),
        ("session_up", Event),
        ("session_down", Failure),
        ("session_resumed", Event),
        ("unreachable", Failure),
        ("error", Failure),
        ("log", Log),
        ("stopped", Stopped),
    ]


class LocalOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("server", c_char_p),
        ("psk", c_char_p),
        ("psk_bytes", c_size_t),
        ("forwards", POINTER(c_char_p)),
        ("forward_count", c_size_t),
        ("listen", c_char_p),
        ("config", c_char_p),
    ]


class Datagram(Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_size_t), ("address", c_char_p)]


Received = CFUNCTYPE(None, c_void_p, POINTER(Datagram), c_size_t)
Unreachable = CFUNCTYPE(None, c_void_p, c_char_p, c_int, c_uint)


class AssociationCallbacks(Structure):
    _fields_ = [("size", c_size_t), ("received", Received), ("unreachable", Unreachable), ("closed", Event)]


def load():
    library = ctypes.CDLL(os.environ.get("UNDERPASS_LIBRARY") or ctypes.util.find_library("underpass") or "libunderpass.so")
    library.underpass_error_text.restype = c_char_p
    library.underpass_local_start.argtypes = [POINTER(LocalOptions), POINTER(Callbacks), c_void_p, POINTER(c_void_p)]
    library.underpass_local_free.argtypes = [c_void_p]
    library.underpass_association_open.argtypes = [
        c_void_p,
        POINTER(AssociationCallbacks),
        c_void_p,
        POINTER(c_void_p),
    ]
    library.underpass_association_send.argtypes = [c_void_p, POINTER(Datagram), c_size_t]
    library.underpass_association_send.restype = c_ssize_t
    library.underpass_association_close.argtypes = [c_void_p]
    return library


def main(server, psk, target, text):
    library = load()

    def check(status):
        if status < 0:
            sys.exit(library.underpass_error_text().decode())

    is_up, is_answered = threading.Event(), threading.Event()
    # These variables keep the callbacks alive: the library calls them until `stopped`.
    session_up = Event(lambda data: is_up.set())
    unreachable = Failure(lambda data, status, reason: print(reason.decode(), file=sys.stderr))

    def on_received(data, datagrams, count):
        for datagram in datagrams[:count]:
            print(datagram.address.decode(), ctypes.string_at(datagram.data, datagram.bytes).decode(), flush=True)
        is_answered.set()

    received = Received(on_received)
    callbacks = Callbacks(size=ctypes.sizeof(Callbacks), session_up=session_up, unreachable=unreachable)
    options = LocalOptions(
        size=ctypes.sizeof(LocalOptions), server=server.encode(), psk=psk.encode(), psk_bytes=len(psk), listen=b""
    )
    local, association = c_void_p(), c_void_p()
    check(library.underpass_local_start(options, callbacks, None, ctypes.byref(local)))
    receiver = AssociationCallbacks(size=ctypes.sizeof(AssociationCallbacks), received=received)
    check(library.underpass_association_open(local, receiver, None, ctypes.byref(association)))
    try:
        if not is_up.wait(WAIT_S):
            sys.exit("no session")
        payload = ctypes.create_string_buffer(text.encode(), len(text.encode()))
        datagram = Datagram(ctypes.cast(payload, c_void_p), len(payload), target.encode())
        check(library.underpass_association_send(association, datagram, 1))
        if not is_answered.wait(WAIT_S):
            sys.exit("no answer")
    finally:
        library.underpass_association_close(association)
        library.underpass_local_free(local)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
