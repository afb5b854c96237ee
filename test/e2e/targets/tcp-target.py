# A TCP target on argv[1], port argv[2]. "echo" returns all bytes; "stall SECONDS" accepts, reads nothing for that time, then everything,
# and answers with its SHA-256 in hex; "hash" does so at once.
import asyncio
import hashlib
import resource
import sys

host, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def digest(reader, writer):
    if mode == "stall":
        writer.transport.pause_reading()
        await asyncio.sleep(float(sys.argv[4]))
        writer.transport.resume_reading()
    seen = hashlib.sha256()
    while data := await reader.read(65536):
        seen.update(data)
    writer.write(seen.hexdigest().encode())
    writer.close()


async def main():
    server = await asyncio.start_server(echo if mode == "echo" else digest, host, port, backlog=4096)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
