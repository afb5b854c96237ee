"""A client of RFC 9298 and its bind extension over HTTP/2, on h2: CLIENT.py PORT ECHO_PORT [CA]. Prints its results.
With a CA it uses TLS and chooses HTTP/2 by ALPN."""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

proxy, echo = int(sys.argv[1]), int(sys.argv[2])
ECHO = b"\x04\x7f\x00\x00\x01" + echo.to_bytes(2, "big")
ENABLE_CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class Connection:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", proxy), timeout=10)
        if len(sys.argv) > 3:
            context = ssl.create_default_context(cafile=sys.argv[3])
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2", self.socket.selected_alpn_protocol()
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()
        self.flush()
        self.streams = {}
        self.ended = None
        while self.http.remote_settings[ENABLE_CONNECT_PROTOCOL] != 1:
            self.read()

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def read(self):
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.ended = event.error_code
            stream = self.streams.get(getattr(event, "stream_id", None))
            if stream is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                stream.fields = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                stream.data += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset = event.error_code
        self.flush()

    def request(self, path, *fields, method="CONNECT", protocol="connect-udp", **others):
        headers = [(":method", method), (":scheme", "https"), (":authority", "proxy.example"), (":path", path)]
        if protocol is not None:
            headers.insert(1, (":protocol", protocol))
        stream = Stream(self, self.http.get_next_available_stream_id())
        self.streams[stream.number] = stream
        self.http.send_headers(stream.number, headers + list(fields), **others)
        self.flush()
        return stream


class Stream:
    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.fields, self.data, self.ended, self.reset = None, b"", False, None

    @property
    def status(self):
        while self.fields is None:
            assert self.reset is None, self.reset
            self.connection.read()
        return int(self.fields[":status"])

    def send(self, kind, value):
        self.connection.http.send_data(self.number, bytes([kind, len(value)]) + value)
        self.connection.flush()

    def receive(self):
        def take(count):
            while len(self.data) < count:
                assert not self.ended and self.reset is None, (self.ended, self.reset)
                self.connection.read()
            taken, self.data = self.data[:count], self.data[count:]
            return taken

        kind, length = take(2)
        return kind, take(length)

    def body(self):
        while not self.ended:
            assert self.reset is None, self.reset
            self.connection.read()
        return self.data


connection = Connection()
one = connection.request(f"/.well-known/masque/udp/127.0.0.1/{echo}/", ("capsule-protocol", "?1"))
# Before the answer, as RFC 9298 §3 permits over HTTP/2.
one.send(0, b"\x00early")
assert one.status == 200, one.fields
assert one.fields["capsule-protocol"] == "?1", one.fields
assert "upgrade" not in one.fields and "connection" not in one.fields, one.fields
assert one.receive() == (0, b"\x00early")
one.send(0, b"\x00hello")
connection.http.end_stream(one.number)
connection.flush()
assert one.receive() == (0, b"\x00hello")
print("one target: answered before and after the end of its side")

bound = connection.request("/.well-known/masque/udp/%2A/%2A/", ("connect-udp-bind", "?1"))
assert bound.status == 200, bound.fields
assert bound.fields["connect-udp-bind"] == "?1", bound.fields
bound.send(0x11, b"\x02\x00")
assert bound.receive() == (0x12, b"\x02")
bound.send(0, b"\x02" + ECHO + b"hello")
assert bound.receive() == (0, b"\x02" + ECHO + b"hello")
bound.send(0x11, b"\x04" + ECHO)
assert bound.receive() == (0x12, b"\x04")
bound.send(0, b"\x04again")
assert bound.receive() == (0, b"\x04again")
knock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
knock.bind(("127.0.0.1", 0))
public = bound.fields["proxy-public-address"].split(",")[0].strip('"')
knock.sendto(b"knock", ("127.0.0.1", int(public.split(":")[1])))
source = b"\x04\x7f\x00\x00\x01" + knock.getsockname()[1].to_bytes(2, "big")
assert bound.receive() == (0, b"\x02" + source + b"knock")
print("bound: uncompressed, compressed, a stranger")

many = [connection.request(f"/.well-known/masque/udp/127.0.0.1/{echo}/") for _ in range(50)]
for number, stream in enumerate(many):
    assert stream.status == 200, stream.fields
    stream.send(0, b"\x00" + number.to_bytes(2, "big"))
for number, stream in enumerate(many):
    assert stream.receive() == (0, b"\x00" + number.to_bytes(2, "big"))
    connection.http.reset_stream(stream.number)
connection.flush()
print("50 targets at once on one connection")

UDP = "/.well-known/masque/udp/"
for target, status in (("192.0.2.1/0", 400), ("%2A/53", 400), ("10.0.0.1/53", 403), ("nowhere.invalid/53", 502)):
    refused = connection.request(f"{UDP}{target}/")
    assert refused.status == status, (target, refused.fields)
    assert b"<title>%d" % status in refused.body(), refused.data
for fields, status in (
    ({"path": "/"}, 404),
    ({"path": "/", "method": "GET", "protocol": None, "end_stream": True}, 404),
    ({"path": f"{UDP}127.0.0.1/{echo}/", "method": "GET", "protocol": None, "end_stream": True}, 400),
    ({"path": f"{UDP}127.0.0.1/{echo}/", "protocol": "websocket"}, 400),
    ({"path": "/", "method": "HEAD", "protocol": None, "end_stream": True}, 404),
):
    refused = connection.request(**fields)
    assert refused.status == status, (fields, refused.fields)
    refused.body()
# Malformed capsules end only their request.
spoilt = connection.request(f"{UDP}127.0.0.1/{echo}/")
assert spoilt.status == 200
spoilt.send(0, b"")
while spoilt.reset is None and not spoilt.ended:
    connection.read()
bound.send(0, b"\x04still")
assert bound.receive() == (0, b"\x04still")
print("refusals: whole, and the connection goes on")
