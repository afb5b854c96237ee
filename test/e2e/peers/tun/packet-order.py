# Checks that datagrams of one flow pass a TUN device unchanged and in order, among packets that must not arrive.
#   target ADDRESS                  prints the port, then, after a datagram "end", a JSON list of what came, as text
#   packets DEVICE ADDRESS PORT ECHO_PORT SEED   sends them from a source that nobody has, in batches; after each it waits for an answer
#                                   of the echo, which comes behind them. Prints the JSON list of what should come
#   answers ADDRESS ECHO_PORT SEED  exchanges bursts with the echo from one socket. Prints {"sent", "same"}
import json
import random
import socket
import struct
import sys

SOURCE, SOURCE_PORT = "10.128.0.1", 5000
BATCHES, BATCH = 60, 14
ETH_P_IP = 0x0800
UDP_SEGMENT = 103


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(target, body, tos=0, ttl=64, flags=0x4000, number=0):
    addresses = socket.inet_aton(SOURCE) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(body), number, flags, ttl, socket.IPPROTO_UDP, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def udp(target, port, payload):
    addresses = socket.inet_aton(SOURCE) + socket.inet_aton(target)
    length = 8 + len(payload)
    header = struct.pack("!HHHH", SOURCE_PORT, port, length, 0)
    pseudo = addresses + struct.pack("!HH", socket.IPPROTO_UDP, length)
    return header[:6] + struct.pack("!H", checksum(pseudo + header + payload) or 0xFFFF) + payload


def ask(echo, text):
    for _ in range(5):
        echo.send(text)
        try:
            return echo.recv(64) == text
        except TimeoutError:
            continue
    sys.exit("no answer of the echo")


mode, *rest = sys.argv[1:]
if mode == "target":
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    receiver.bind((rest[0], 0))
    receiver.settimeout(40)
    print("port", receiver.getsockname()[1], flush=True)
    heard = []
    while not heard or heard[-1] != "end":
        heard.append(receiver.recv(65535).decode("latin1"))
    print(json.dumps(heard), flush=True)
elif mode == "packets":
    device, target, port, echo_port, seed = rest[0], rest[1], int(rest[2]), int(rest[3]), rest[4]
    generator = random.Random(seed)
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.connect((target, echo_port))
    echo.settimeout(2)
    expected = []
    for batch in range(BATCHES):
        is_plain = generator.random() < 0.3
        for index in range(generator.randrange(1, BATCH)):
            text = f"{batch}.{index}".ljust(generator.randrange(4, 1200), "-")
            kind = 0 if is_plain else generator.randrange(10)
            body = udp(target, port, text.encode())
            packets = [ip_packet(target, body)]
            if kind == 1:
                cut = 8 * generator.randrange(1, max(2, len(body) // 8))
                packets = [ip_packet(target, body[:cut], flags=0x2000, number=batch * 100 + index)]
                packets += [ip_packet(target, body[cut:], flags=cut // 8, number=batch * 100 + index)]
            elif kind == 2:
                packets = [ip_packet(target, body, tos=generator.choice((0x28, 0xB8, 1)))]
            elif kind == 3:
                # One byte that is another breaks a checksum.
                at = generator.randrange(1, len(packets[0]))
                changed = packets[0][at] ^ generator.randrange(1, 256)
                packets = [packets[0][:at] + bytes([changed]) + packets[0][at + 1 :]]
            elif kind == 4:
                packets = [packets[0][: generator.randrange(1, len(packets[0]))]]
            elif kind == 5:
                packets = [ip_packet(target, body, ttl=1)]
            elif kind == 6:
                # Without a checksum, as IPv4 permits; bytes behind the packet do not belong to it.
                packets = [ip_packet(target, body[:6] + b"\0\0" + body[8:]) + b"behind"]
            if kind not in (3, 4, 5):
                expected.append(text)
            for packet in packets:
                raw.sendto(packet, (device, ETH_P_IP))
        ask(echo, f"batch {batch}".encode())
    expected.append("end")
    raw.sendto(ip_packet(target, udp(target, port, b"end")), (device, ETH_P_IP))
    print(json.dumps(expected), flush=True)
else:
    generator = random.Random(rest[2])
    is_ipv6 = ":" in rest[0]
    echo = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    echo.connect((rest[0], int(rest[1])))
    echo.settimeout(2)
    ask(echo, b"first")
    echo.settimeout(10)
    sent, heard = [], []
    for burst in range(BATCHES):
        due = []
        for index in range(generator.randrange(1, BATCH)):
            # Some are fragmented on the way, and some sent in one call.
            size = generator.choice((4000, 1200, 1200, 300, 20))
            text = f"{burst}.{index}".ljust(generator.randrange(12, size), "-").encode()
            if size == 300:
                segments = [text] * 4 + [text[:10]]
                control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(text)))]
                echo.sendmsg([b"".join(segments)], control)
                due += segments
            else:
                echo.send(text)
                due.append(text)
        heard += [echo.recv(65535) for _ in due]
        sent += due
    print(json.dumps({"sent": len(sent), "same": heard == sent}), flush=True)
