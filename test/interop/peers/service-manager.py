"""The parts of a service manager that a restarted service uses: sd_listen_fds(3), and of sd_notify(3) READY=1, BARRIER=1, and the
file descriptor store with FDSTORE=1, FDSTOREREMOVE=1, FDNAME= and FDPOLL=0.

Arguments: the capacity of the store in descriptors, the program and its arguments. Reads the name of a signal for each restart
from standard input. Writes lines of JSON: {"port"}, then {"pid"} and {"ready"} of each process, and {"ended", "stored"} at its end.
"""

import array
import fcntl
import json
import os
import select
import signal
import socket
import sys
import tempfile

FIRST = 3
capacity = int(sys.argv[1])
command = sys.argv[2:]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
folder = tempfile.TemporaryDirectory(prefix="underpass-manager-")
path = os.path.join(folder.name, "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
# Files that the store holds as "sessions" from the start.
store = [
    {"name": "sessions", "fd": os.open(name, os.O_RDONLY), "polled": False}
    for name in os.environ.get("SERVICE_MANAGER_STORE", "").split(":")
    if name
]
child = 0


def say(**fields):
    print(json.dumps(fields), flush=True)


def start():
    global child
    ended = select.poll()
    for entry in list(store):
        if entry["polled"]:
            ended.register(entry["fd"], 0)
    for fd, _ in ended.poll(0):
        remove(lambda entry, fd=fd: entry["fd"] == fd)
    passed = [("tunnels", listener.fileno())] + [(entry["name"], entry["fd"]) for entry in store]
    child = os.fork()
    if child:
        say(pid=child)
        return
    # Above all descriptors that the loop below assigns.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST + len(passed)) for _, fd in passed]
    for place, fd in enumerate(high):
        os.dup2(fd, FIRST + place, inheritable=True)
        os.close(fd)
    os.environ.update(
        NOTIFY_SOCKET=path,
        LISTEN_PID=str(os.getpid()),
        LISTEN_FDS=str(len(passed)),
        LISTEN_FDNAMES=":".join(name for name, _ in passed),
    )
    os.execvp(command[0], command)


def remove(is_meant):
    for entry in [entry for entry in store if is_meant(entry)]:
        store.remove(entry)
        os.close(entry["fd"])


def receive():
    data, rights, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
    fds = array.array("i")
    for _, _, payload in rights:
        fds.frombytes(payload)
    lines = data.decode().split("\n")
    name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
    if "READY=1" in lines:
        say(ready=True)
    if "FDSTOREREMOVE=1" in lines:
        remove(lambda entry: entry["name"] == name)
    for fd in fds:
        if "FDSTORE=1" in lines and len(store) < capacity:
            store.append({"name": name, "fd": fd, "polled": "FDPOLL=0" not in lines})
        else:
            os.close(fd)


def end(*_):
    if child:
        os.kill(child, signal.SIGKILL)
    folder.cleanup()
    os._exit(0)


signal.signal(signal.SIGTERM, end)
say(port=listener.getsockname()[1])
start()
commands = b""
while True:
    process = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([notify, 0, process], [], [])
        if notify in ready:
            receive()
            continue
        if 0 in ready:
            read = os.read(0, 4096)
            if not read:
                end()
            commands += read
            while b"\n" in commands:
                line, commands = commands.split(b"\n", 1)
                os.kill(child, signal.Signals[line.decode()])
        if process in ready:
            break
    os.waitpid(child, 0)
    os.close(process)
    say(ended=child, stored=[entry["name"] for entry in store])
    start()
