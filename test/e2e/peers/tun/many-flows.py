# Many TCP connections to argv[2], port argv[3]. "rate N SECONDS": opens N a second, each asks for one byte, gets it and ends; prints
# "done DONE failed FAILED". "hold N": opens N, prints "holding N", and at the end of its input asks a byte of each: "answered M".
import asyncio
import resource
import sys

mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def ask(failures):
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 20)
        writer.write(b"x")
        if await asyncio.wait_for(reader.read(1), 20) != b"x":
            failures.append("ended")
        writer.close()
        await writer.wait_closed()
    except Exception as error:
        failures.append(repr(error))


async def rate(a_second, seconds):
    loop = asyncio.get_running_loop()
    begin, failures, tasks = loop.time(), [], []
    for index in range(a_second * seconds):
        await asyncio.sleep(max(0, begin + index / a_second - loop.time()))
        tasks.append(asyncio.create_task(ask(failures)))
    await asyncio.gather(*tasks)
    print(f"done {len(tasks)} failed {len(failures)} {' '.join(sorted(set(failures))[:3])}", flush=True)


async def hold(count):
    flows = []
    for _ in range(count):
        flows.append(await asyncio.wait_for(asyncio.open_connection(host, port), 20))
    print(f"holding {len(flows)}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for _, writer in flows:
        writer.write(b"x")
    answers = await asyncio.gather(*(asyncio.wait_for(reader.read(1), 20) for reader, _ in flows))
    print(f"answered {sum(answer == b'x' for answer in answers)}", flush=True)


if mode == "rate":
    asyncio.run(rate(int(sys.argv[4]), int(sys.argv[5])))
else:
    asyncio.run(hold(int(sys.argv[4])))
