# Tests whether DSCPs get through. argv of the target: "target", address; it prints its port, and answers each datagram with the TOS byte or
# traffic class that it came with. argv of the application: "application", address, port, and values of that byte; for each in turn it sends
# from one socket until an answer names the DSCP. Prints what the first answer of all was, and the last for each value, as {"first": N,
# "last": [N, ...]}.
import json
import socket
import struct
import sys
import time

DEADLINE_S = 10
PAUSE_S = 0.02
role, host, *rest = sys.argv[1:]
is_ipv6 = ":" in host
# Of <linux/in.h> and <linux/in6.h>.
level, TOS, RECVTOS = (socket.IPPROTO_IPV6, 67, 66) if is_ipv6 else (socket.IPPROTO_IP, 1, 13)
udp = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)

if role == "target":
    udp.setsockopt(level, RECVTOS, 1)
    udp.bind((host, 0))
    print("port", udp.getsockname()[1], flush=True)
    while True:
        _, control, _, source = udp.recvmsg(2048, 64)
        for _, kind, data in control:
            if kind == TOS:
                udp.sendto(bytes([data[0] if len(data) == 1 else struct.unpack("i", data)[0]]), source)

udp.settimeout(PAUSE_S)
first, last = None, []
for value in map(int, rest[1:]):
    udp.setsockopt(level, TOS, value)
    deadline = time.monotonic() + DEADLINE_S
    heard = None
    while heard != value & ~3 and time.monotonic() < deadline:
        udp.sendto(b"which?", (host, int(rest[0])))
        try:
            heard = udp.recv(16)[0]
        except TimeoutError:
            continue
        first = heard if first is None else first
        time.sleep(PAUSE_S)
    last.append(heard)
print(json.dumps({"first": first, "last": last}))
