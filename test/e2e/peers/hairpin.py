# Two UDP sockets behind one NAT. Each asks the echo at argv[1], port argv[2], for its external address; then both send to the other's
# address repeatedly. Prints {"external": [..., ...], "heard": [..., ...]}: what the echo saw, and whom each heard.
import json
import select
import socket
import sys
import time

DEADLINE_S = 10
AGAIN_S = 0.2
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET


def external_address(udp):
    udp.settimeout(AGAIN_S)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        udp.sendto(b"whoami", (host, port))
        try:
            answer = udp.recv(100).decode()
        except TimeoutError:
            continue
        address, _, answer_port = answer.rpartition(":")
        return address.strip("[]"), int(answer_port)
    sys.exit("no answer of the echo")


sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
external = [external_address(udp) for udp in sockets]
heard = [None, None]
deadline = time.monotonic() + DEADLINE_S
while None in heard and time.monotonic() < deadline:
    for index, udp in enumerate(sockets):
        udp.sendto(b"hairpin", external[1 - index])
    again = time.monotonic() + AGAIN_S
    while time.monotonic() < again:
        for udp in select.select(sockets, [], [], max(0, again - time.monotonic()))[0]:
            data, source = udp.recvfrom(100)
            if data == b"hairpin":
                heard[sockets.index(udp)] = source[:2]
print(json.dumps({"external": external, "heard": heard}))
