"""A client of RFC 9298 and its bind extension, on h11: CLIENT.py PORT ECHO_PORT. Prints its results."""

import re
import socket
import sys

import h11

proxy, echo = int(sys.argv[1]), int(sys.argv[2])
ECHO = b"\x04\x7f\x00\x00\x01" + echo.to_bytes(2, "big")


class Tunnel:
    def __init__(self, path, *fields):
        self.socket = socket.create_connection(("127.0.0.1", proxy), timeout=10)
        self.http = h11.Connection(h11.CLIENT)
        base = [("Host", "proxy.example"), ("Connection", "Upgrade"), ("Upgrade", "connect-udp")]
        request = h11.Request(method="GET", target=path, headers=base + [("Capsule-Protocol", "?1"), *fields])
        self.socket.sendall(self.http.send(request) + self.http.send(h11.EndOfMessage()))
        self.answer = self.next()
        self.fields = {name.decode(): value.decode() for name, value in self.answer.headers}
        self.capsules = b""
        if self.answer.status_code == 101:
            assert self.next() is h11.PAUSED
            assert self.http.their_state is h11.SWITCHED_PROTOCOL
            self.capsules = self.http.trailing_data[0]

    def next(self):
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(self.socket.recv(65536))
        return event

    def body(self):
        """The body of a refusal, after which the connection must end."""
        body = b""
        while isinstance(event := self.next(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage), event
        assert self.socket.recv(1) == b""
        return body

    def send(self, kind, value):
        self.socket.sendall(bytes([kind, len(value)]) + value)

    def receive(self):
        def take(count):
            while len(self.capsules) < count:
                data = self.socket.recv(65536)
                assert data, "ended"
                self.capsules += data
            taken, self.capsules = self.capsules[:count], self.capsules[count:]
            return taken

        kind, length = take(2)
        return kind, take(length)


one = Tunnel(f"/.well-known/masque/udp/127.0.0.1/{echo}/")
assert one.answer.status_code == 101, one.answer
one.send(0x11, b"\x02\x00")
one.send(0, b"\x00hello")
one.socket.shutdown(socket.SHUT_WR)
assert one.receive() == (0, b"\x00hello")
print("one target: answered after the FIN")

bound = Tunnel("/.well-known/masque/udp/%2A/%2A/", ("Connect-UDP-Bind", "?1"))
assert bound.fields["connect-udp-bind"] == "?1", bound.fields
public = re.findall(r'"(?:\[[0-9a-f:]+\]|[0-9.]+):[0-9]+"', bound.fields["proxy-public-address"])
assert ", ".join(public) == bound.fields["proxy-public-address"], bound.fields
bound.send(0x11, b"\x02\x00")
assert bound.receive() == (0x12, b"\x02")
bound.send(0, b"\x02" + ECHO + b"hello")
assert bound.receive() == (0, b"\x02" + ECHO + b"hello")
bound.send(0x11, b"\x04" + ECHO)
assert bound.receive() == (0x12, b"\x04")
bound.send(0, b"\x04again")
assert bound.receive() == (0, b"\x04again")
stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stranger.bind(("127.0.0.1", 0))
stranger.sendto(b"knock", ("127.0.0.1", int(public[0].strip('"').split(":")[1])))
source = b"\x04\x7f\x00\x00\x01" + stranger.getsockname()[1].to_bytes(2, "big")
assert bound.receive() == (0, b"\x02" + source + b"knock")
print("bound: uncompressed, compressed, a stranger")

for target, status in (("192.0.2.1/0", 400), ("%2A/53", 400), ("10.0.0.1/53", 403), ("nowhere.invalid/53", 502)):
    refused = Tunnel(f"/.well-known/masque/udp/{target}/")
    assert refused.answer.status_code == status, (target, refused.answer)
    refused.body()
assert Tunnel("/").answer.status_code == 404
print("refusals: whole, then closed")
