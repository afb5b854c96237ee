"""A foreign WebSocket peer (python3-websockets).

gateway PORT TARGET-PORT   WebSocket server whose binary messages are the bytes of a TCP connection to 127.0.0.1
ask PORT PATH UDP-PORT     client of RFC 9298 over a WebSocket: has a datagram echoed and prints the answer
"""
import asyncio
import sys

import websockets


async def gateway(port, target):
    async def serve(web_socket):
        reader, writer = await asyncio.open_connection("127.0.0.1", target)

        async def upwards():
            try:
                async for message in web_socket:
                    writer.write(message)
                    await writer.drain()
            finally:
                writer.close()

        async def downwards():
            # Small messages in two fragments each, an unusual choice.
            while data := await reader.read(1000):
                await web_socket.send([data[:1], data[1:]] if len(data) > 1 else data)
            await web_socket.close()

        await asyncio.gather(upwards(), downwards(), return_exceptions=True)

    async with websockets.serve(serve, "127.0.0.1", port):
        await asyncio.Future()


async def ask(port, path, udp_port):
    request = (
        f"GET /.well-known/masque/udp/127.0.0.1/{udp_port}/ HTTP/1.1\r\nHost: proxy.example\r\n"
        "Connection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n"
    ).encode()
    async with websockets.connect(f"ws://127.0.0.1:{port}{path}") as web_socket:
        assert web_socket.extensions == []
        # Cuts inside Underpass's messages and sends one part in fragments.
        await web_socket.send(request[:7])
        await web_socket.send([request[7:9], request[9:]])
        head = b""
        while b"\r\n\r\n" not in head:
            head += await web_socket.recv()
        assert head.startswith(b"HTTP/1.1 101 "), head
        received = head.split(b"\r\n\r\n", 1)[1]
        capsule = b"\x00\x06\x00hello"
        for byte in capsule:
            await web_socket.send(bytes([byte]))
        while len(received) < len(capsule):
            received += await web_socket.recv()
        assert received == capsule, received
        await web_socket.ping(b"still there?")
    print(received[3:].decode())


mode, *arguments = sys.argv[1:]
if mode == "gateway":
    asyncio.run(gateway(int(arguments[0]), int(arguments[1])))
else:
    asyncio.run(ask(int(arguments[0]), arguments[1], int(arguments[2])))
