# Half-closes and resets of TCP through the programs in between. "serve ADDRESS PORT MODE" takes one connection, "ask ADDRESS PORT MODE"
# makes it; each prints what it read and how that ended. Modes are named for who ends first, and how.
import socket
import struct
import sys

role, host, port, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def hear(connection):
    heard = b""
    try:
        while piece := connection.recv(65536):
            heard += piece
        return f"{len(heard)} FIN"
    except ConnectionResetError:
        return f"{len(heard)} RST"


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


if role == "serve":
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    print("listening", flush=True)
    connection, _ = listener.accept()
else:
    connection = socket.create_connection((host, port), timeout=10)
connection.settimeout(10)
is_first = mode.startswith("serve") == (role == "serve")
if mode.endswith("fin"):
    if is_first:
        connection.sendall(b"x" * 300_000)
        connection.shutdown(socket.SHUT_WR)
        print(hear(connection), flush=True)
    else:
        heard = hear(connection)
        connection.sendall(b"y" * 200_000)
        connection.close()
        print(heard, flush=True)
elif is_first:
    connection.sendall(b"x")
    connection.recv(1)
    reset(connection)
else:
    connection.recv(1)
    connection.sendall(b"x")
    print(hear(connection), flush=True)
