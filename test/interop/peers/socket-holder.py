"""Keeps a listening socket open, as systemd does for a .socket unit, and restarts a program on it whenever it ends.

Prints the port. Arguments: the program and its arguments. Ends the program and itself on SIGTERM.
"""

import os
import signal
import socket
import sys

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print(listener.getsockname()[1], flush=True)
child = 0


def end(*_):
    if child:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
while True:
    child = os.fork()
    if child == 0:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="tunnels")
        os.execvp(sys.argv[1], sys.argv[1:])
    print(child, flush=True)
    os.waitpid(child, 0)
