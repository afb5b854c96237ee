"""A proxy of RFC 9298 over HTTP/2, on h2, without the bind extension: PROXY.py PORT STREAMS [CERT KEY]. It permits STREAMS
concurrent requests on a connection, requires user u with password p, refuses port 9 with 403, and prints each request in a line.
With a certificate it uses TLS and chooses h2 by ALPN."""

import base64
import re
import select
import socket
import ssl
import sys
import threading
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.settings

PORT, STREAMS = int(sys.argv[1]), int(sys.argv[2])
CREDENTIALS = "Basic " + base64.b64encode(b"u:p").decode()
Codes = h2.settings.SettingCodes


def serve(client):
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    http.local_settings = h2.settings.Settings(
        client=False,
        initial_values={Codes.ENABLE_CONNECT_PROTOCOL: 1, Codes.MAX_CONCURRENT_STREAMS: STREAMS},
    )
    http.initiate_connection()
    client.sendall(http.data_to_send())
    targets, streams, capsules = {}, {}, {}

    def close(stream):
        target = streams.pop(stream, None)
        if target is not None:
            del targets[target]
            target.close()

    def refuse(stream, status, *fields):
        http.send_headers(stream, [(":status", str(status)), *fields], end_stream=True)

    def ask(stream, headers):
        fields = dict(headers)
        print("ask", fields[":path"], fields.get(":protocol"), fields[":scheme"], fields[":authority"], flush=True)
        match = re.fullmatch(r"/masque\?h=([^&]*)&p=([0-9]+)", fields[":path"])
        if fields[":method"] != "CONNECT" or fields.get(":protocol") != "connect-udp" or match is None:
            return refuse(stream, 404)
        if fields.get("authorization") != CREDENTIALS:
            return refuse(stream, 401, ("www-authenticate", 'Basic realm="masque"'))
        host, port = urllib.parse.unquote(match[1]), int(match[2])
        if port == 9:
            return refuse(stream, 403, ("proxy-status", "tester; error=destination_ip_prohibited"))
        target = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        target.connect((host, port))
        targets[target], streams[stream], capsules[stream] = stream, target, b""
        http.send_headers(stream, [(":status", "200"), ("capsule-protocol", "?1")])

    def take(stream, data):
        capsules[stream] += data
        while (found := varint(capsules[stream], 0)) and (size := varint(capsules[stream], found[1])):
            end = size[1] + size[0]
            if len(capsules[stream]) < end:
                break
            value, capsules[stream] = capsules[stream][size[1] : end], capsules[stream][end:]
            if found[0] == 0 and value[:1] == b"\0":
                streams[stream].send(value[1:])

    try:
        while True:
            readable = [client] if not isinstance(client, ssl.SSLSocket) or client.pending() == 0 else []
            ready = select.select([client, *targets], [], [], 0 if readable == [] else None)[0]
            if readable == [] and client not in ready:
                ready.append(client)
            for source in ready:
                if source is not client:
                    stream = targets.get(source)
                    if stream is None:
                        continue
                    value = b"\0" + source.recv(65535)
                    http.send_data(stream, b"\0" + length(len(value)) + value)
                    continue
                data = client.recv(65536)
                if not data:
                    return
                for event in http.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        ask(event.stream_id, event.headers)
                    elif isinstance(event, h2.events.DataReceived):
                        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        if event.stream_id in streams:
                            take(event.stream_id, event.data)
                    elif isinstance(event, (h2.events.StreamReset, h2.events.StreamEnded)):
                        close(event.stream_id)
            client.sendall(http.data_to_send())
    except OSError:
        pass
    finally:
        client.close()
        for stream in list(streams):
            close(stream)


def varint(data, at):
    """RFC 9000 section 16. Returns the number and the offset after it."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if len(data) < at + size:
        return None
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


def length(number):
    if number < 64:
        return bytes([number])
    return (0x4000 | number).to_bytes(2, "big") if number < 16384 else (0x80000000 | number).to_bytes(4, "big")


listener = socket.create_server(("127.0.0.1", PORT))
context = None
if len(sys.argv) > 3:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    context.set_alpn_protocols(["h2"])
while True:
    accepted = listener.accept()[0]
    try:
        threading.Thread(target=serve, args=(context.wrap_socket(accepted, server_side=True) if context else accepted,), daemon=True).start()
    except OSError:
        accepted.close()
