# Sends packets with invented sources into the TUN device argv[1]: `udp` or `syn` (argv[2]) to argv[3], port argv[4], from argv[5] different
# pairs of address and port, 1,000 ports an address from 10.128.0.1 on. Packets for which the device had no room are sent again. Prints
# {"sent"}.
import json
import random
import socket
import struct
import sys
import time

device, kind, host, port, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
FIRST_SOURCE = 0x0A800001
PORTS_A_SOURCE = 1000
FIRST_PORT = 20000
BURST = 512
target = socket.inet_aton(host)
generator = random.Random(20261124)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(number):
    source = struct.pack("!I", FIRST_SOURCE + number // PORTS_A_SOURCE)
    source_port = FIRST_PORT + number % PORTS_A_SOURCE
    if kind == "udp":
        # Without a checksum, as IPv4 permits.
        body = struct.pack("!HHHH", source_port, port, 9, 0) + b"x"
        protocol = socket.IPPROTO_UDP
    else:
        header = struct.pack("!HHIIBBHHH", source_port, port, generator.getrandbits(32), 0, 5 << 4, 2, 65535, 0, 0)
        pseudo = source + target + struct.pack("!HH", socket.IPPROTO_TCP, len(header))
        body = header[:16] + struct.pack("!HH", checksum(pseudo + header), 0)
        protocol = socket.IPPROTO_TCP
    # The kernel fills in length, identification and checksum.
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, protocol, 0, source, target) + body


def dropped():
    with open(f"/sys/class/net/{device}/statistics/tx_dropped") as file:
        return int(file.read())


sent = 0
while sent < count:
    burst = [packet(number) for number in range(sent, min(sent + BURST, count))]
    while True:
        before = dropped()
        for data in burst:
            raw.sendto(data, (host, 0))
        if dropped() == before:
            break
        time.sleep(0.02)
    sent += len(burst)
print(json.dumps({"sent": sent}))
