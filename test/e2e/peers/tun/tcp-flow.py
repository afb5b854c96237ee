# A TCP connection to argv[1], port argv[2]. Writes argv[3] at once, and again every argv[4] seconds if that is given;
# prints "received N" whenever bytes come, N in all, and at last "end FIN" or "end ERRNO".
import errno
import select
import socket
import sys
import time

host, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
interval = float(sys.argv[4]) if len(sys.argv) > 4 else None
flow = socket.create_connection((host, port), timeout=10)
flow.settimeout(None)
received = 0
try:
    flow.sendall(text)
    write_at = None if interval is None else time.monotonic() + interval
    while True:
        wait = None if write_at is None else max(0, write_at - time.monotonic())
        if not select.select([flow], [], [], wait)[0]:
            flow.sendall(text)
            write_at = time.monotonic() + interval
            continue
        data = flow.recv(65536)
        if not data:
            print("end FIN", flush=True)
            break
        received += len(data)
        print(f"received {received}", flush=True)
except OSError as error:
    print(f"end {errno.errorcode.get(error.errno, error)}", flush=True)
