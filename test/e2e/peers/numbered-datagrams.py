# Numbered datagrams one way, with CLOCK_MONOTONIC in them, which both hosts share.
#   receive ADDRESS COUNT           prints the port, then, when COUNT have arrived or ten seconds have passed, a JSON list
#                                   of [number, sent, received] in the order of arrival, times in seconds
#   send ADDRESS PORT COUNT SIZE    one every half millisecond
import json
import socket
import struct
import sys
import time

mode, address, *rest = sys.argv[1:]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if mode == "receive":
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    udp.bind((address, 0))
    print(udp.getsockname()[1], flush=True)
    arrivals = []
    deadline = time.monotonic() + 10
    while len(arrivals) < int(rest[0]) and time.monotonic() < deadline:
        udp.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            number, sent = struct.unpack_from("!Id", udp.recv(2048))
        except TimeoutError:
            break
        arrivals.append([number, sent, time.monotonic()])
    print(json.dumps(arrivals), flush=True)
else:
    port, count, size = (int(text) for text in rest)
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0, begin + number * 0.0005 - time.monotonic()))
        udp.sendto(struct.pack("!Id", number, time.monotonic()).ljust(size, b"\0"), (address, port))
