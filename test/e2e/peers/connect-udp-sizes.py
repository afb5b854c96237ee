"""Sends datagrams of the sizes given, then one byte, on a tunnel of RFC 9298 and prints the sizes that are echoed before it."""

import socket
import sys

port, target, echo, *sizes = sys.argv[1:]
tunnel = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
path = f"/.well-known/masque/udp/{target.replace(':', '%3A')}/{echo}/"
tunnel.sendall(
    f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n".encode()
)
stream = tunnel.makefile("rb")
assert b" 101 " in stream.readline()
while stream.readline() != b"\r\n":
    pass
for size in [*map(int, sizes), 1]:
    tunnel.sendall(b"\x00" + (0x4000 | size + 1).to_bytes(2, "big") + b"\x00" + bytes(size))
heard = []
while not heard or heard[-1] != 1:
    kind, first = stream.read(2)
    length = first if first < 0x40 else (first & 0x3F) << 8 | stream.read(1)[0]
    assert kind == 0 and stream.read(length)[:1] == b"\x00"
    heard.append(length - 1)
print(*heard[:-1])
