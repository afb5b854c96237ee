"""SOCKS5 clients with UDP ASSOCIATE (RFC 1928), by PySocks and by hand. Each command prints what it learns as JSON."""
import json
import socket
import struct
import sys

import socks

command, host, port, target_host, target_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
TARGET = (target_host, target_port)


def pysocks():
    client = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
    client.set_proxy(socks.SOCKS5, host, port)
    client.settimeout(5)
    return client


def ask(client, text):
    client.sendto(text.encode(), TARGET)
    return client.recvfrom(100)[0].decode()


def associate():
    """The control connection, and BND.ADDR and BND.PORT, or the reply's code."""
    control = socket.create_connection((host, port), 5)
    control.sendall(b"\5\1\0")
    assert control.recv(2) == b"\5\0"
    control.sendall(b"\5\3\0\1\0\0\0\0\0\0")
    reply = control.recv(10)
    if reply[1] != 0:
        return control, reply[1]
    return control, (socket.inet_ntoa(reply[4:8]), struct.unpack("!H", reply[8:])[0])


def wrapped(text):
    return b"\0\0\0\1" + socket.inet_aton(target_host) + struct.pack("!H", target_port) + text.encode()


def exchange(client, relay, text, timeout=5):
    client.settimeout(timeout)
    client.sendto(wrapped(text), relay)
    try:
        return client.recvfrom(100)[0][10:].decode()
    except TimeoutError:
        return None


def udp(source=""):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((source, 0))
    return client


if command == "several":
    # All send before any of them reads: an answer to another would show.
    clients = [pysocks() for _ in range(4)]
    for round in range(3):
        for number, client in enumerate(clients):
            client.sendto(f"{round} of {number}".encode(), TARGET)
        for number, client in enumerate(clients):
            assert client.recvfrom(100)[0].decode() == f"{round} of {number}"
    clients[0].close()
    # Whose place it was is not known to the server.
    answers = [ask(client, f"left {number}") for number, client in enumerate(clients) if number > 0]
    print(json.dumps(answers))
elif command == "relays":
    # As many as are asked for, and once more when the first has gone.
    held = [associate() for _ in range(int(sys.argv[6]))]
    relays = [relay for _, relay in held]
    print(json.dumps([exchange(udp(), relay, "hello") if isinstance(relay, tuple) else relay for relay in relays]))
    print(json.dumps(sorted(relay[1] for relay in relays if isinstance(relay, tuple))))
    held[0][0].close()
    again = associate()
    while not isinstance(again[1], tuple):
        again = associate()
    print(json.dumps(again[1][1] == relays[0][1]))
elif command == "moves":
    control, relay = associate()
    first, second, stranger = udp(), udp(), udp(sys.argv[6])
    print(json.dumps([
        exchange(first, relay, "first"),
        exchange(second, relay, "second", 1),
        exchange(stranger, relay, "stranger", 1),
        exchange(first, relay, "first again"),
    ]))
elif command == "bound":
    print(json.dumps(associate()[1]))
