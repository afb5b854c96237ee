"""Gets a file by TFTP (RFC 1350) through a SOCKS5 server: PROXY-PORT HOST PORT NAME; writes it to standard output."""
import socket
import struct
import sys

import socks

proxy, host, port, name = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, "127.0.0.1", proxy)
client.settimeout(10)
client.sendto(b"\0\1" + name.encode() + b"\0octet\0", (host, port))
server = None
for number in range(1, 1 << 16):
    packet, source = client.recvfrom(65536)
    server = server or source
    assert source == server and source[1] != port, source
    assert struct.unpack("!HH", packet[:4]) == (3, number), packet[:4]
    sys.stdout.buffer.write(packet[4:])
    client.sendto(struct.pack("!HH", 4, number), server)
    if len(packet) < 4 + 512:
        break
