# Sends one datagram from a connected UDP socket, then prints as JSON how the system reacts: the error that recv raises, and the value of
# IP_MTU. argv: address, port, bytes of payload, and "df" to forbid fragments, "all" to include errors that Linux reports only on request.
import errno
import json
import socket
import sys

address, port, size, *options = sys.argv[1:]
is_ipv6 = ":" in address
level = socket.IPPROTO_IPV6 if is_ipv6 else socket.IPPROTO_IP
# Of <linux/in.h> and <linux/in6.h>.
MTU_DISCOVER, DO, RECVERR, MTU = (23, 2, 25, 24) if is_ipv6 else (10, 2, 11, 14)

udp = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
if "df" in options:
    udp.setsockopt(level, MTU_DISCOVER, DO)
if "all" in options:
    udp.setsockopt(level, RECVERR, 1)
udp.connect((address, int(port)))
udp.send(b"x" * int(size))
try:
    result = f"{len(udp.recv(65536))} bytes"
except OSError as error:
    result = errno.errorcode.get(error.errno, str(error))
print(json.dumps({"result": result, "mtu": udp.getsockopt(level, MTU)}))
