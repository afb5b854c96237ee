# TCP through tun2socks by who terminates it, side by side: the kernel, lwIP (with and without the device's offloads, and with packets
# by a Unix socket), and other programs where they are given. Prints three tables; with several rounds, in which the variants take
# turns, the medians. As root, with iperf3, danted and microsocks:
#
#     python3 bench/tun/tcp-stacks.py [--hev PROGRAM] [--badvpn PROGRAM] [--seconds 2] [--rounds 1] [--mtus 1500,9000,65000]
#       [--only "NAME;NAME"] [--no-idle]
#
# All of them connect to one danted in another network namespace, or, for the idle flows, to a microsocks. CPU is that of the tun2socks
# alone, user and system.
import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE, THERE = "tcpstacks-a", "tcpstacks-b"
DEVICE = "bench0"
SOCKS, TARGET = "10.98.0.2", "10.99.0.1"
DANTED, MICROSOCKS = 1080, 1081
DANTED_CONFIG = f"""errorlog: /dev/null
internal: {SOCKS} port = {DANTED}
external: {TARGET}
clientmethod: none
socksmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""
IDLE_FLOWS = 2000
IPERF3_PORT = 5201

parser = argparse.ArgumentParser()
parser.add_argument("--hev")
parser.add_argument("--badvpn")
parser.add_argument("--seconds", type=int, default=2)
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--no-idle", action="store_true")
parser.add_argument("--mtus", default="1500,9000,65000")
parser.add_argument("--only")
options = parser.parse_args()
directory = tempfile.mkdtemp(prefix="underpass-tcp-stacks-")
running = []


def sh(*argv, check=True):
    return subprocess.run(argv, check=check, capture_output=True, text=True).stdout


def spawn(namespace, *argv):
    log = open(os.path.join(directory, "log"), "a")
    process = subprocess.Popen(["ip", "netns", "exec", namespace, *argv], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    running.append(process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    running.remove(process)


def until(condition, what):
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what}; see {directory}/log")
        time.sleep(0.05)


def has_device():
    return subprocess.run(["ip", "-n", HERE, "link", "show", DEVICE], capture_output=True).returncode == 0


def ours(mtu, port, *more):
    path = os.path.join(ROOT, "dist/cli/tun2socks.js")
    common = ["--mtu", f"{mtu}", "--tcp-via", f"socks5://{SOCKS}:{port}", "--udp-via", "reject"]
    return spawn(HERE, "node", path, *common, *more)


def by_tun(*more):
    def start(mtu, port):
        process = ours(mtu, port, "--device", f"tun:{DEVICE}", "--route", "10.99.0.0/24", *more)
        until(lambda: has_device() and "10.99" in sh("ip", "-n", HERE, "route"), "device of tun2socks")
        return [process]

    return start


def by_unix(mtu, port):
    path = os.path.join(directory, f"packets-{time.monotonic()}")
    process = ours(mtu, port, "--device", f"unix:{path}")
    until(lambda: os.path.exists(path), "socket of tun2socks")
    bridge = os.path.join(ROOT, "test/e2e/peers/tun/carry-packets.mjs")
    carrier = spawn(HERE, "node", bridge, path, DEVICE, f"{mtu}", "198.18.7.1/24", "fd75:7::1/64")
    until(has_device, "device of the bridge")
    time.sleep(0.5)
    sh("ip", "-n", HERE, "route", "add", "10.99.0.0/24", "dev", DEVICE)
    return [process, carrier]


def hev(mtu, port):
    path = os.path.join(directory, "hev.yml")
    with open(path, "w") as file:
        file.write(f"tunnel:\n  name: {DEVICE}\n  mtu: {mtu}\n  ipv4: 198.18.0.1\n")
        file.write(f"socks5:\n  address: {SOCKS}\n  port: {port}\n  udp: 'udp'\nmisc:\n  log-level: error\n  limit-nofile: 20000\n")
    process = spawn(HERE, options.hev, path)
    until(has_device, "device of hev")
    time.sleep(0.3)
    sh("ip", "-n", HERE, "link", "set", DEVICE, "up")
    sh("ip", "-n", HERE, "route", "replace", "10.99.0.0/24", "dev", DEVICE)
    return [process]


def badvpn(mtu, port):
    sh("ip", "-n", HERE, "tuntap", "add", DEVICE, "mode", "tun")
    sh("ip", "-n", HERE, "addr", "add", "198.18.0.1/30", "dev", DEVICE)
    sh("ip", "-n", HERE, "link", "set", DEVICE, "mtu", f"{mtu}", "up")
    sh("ip", "-n", HERE, "route", "add", "10.99.0.0/24", "dev", DEVICE)
    netif = ["--netif-ipaddr", "198.18.0.2", "--netif-netmask", "255.255.255.252"]
    socks = ["--socks-server-addr", f"{SOCKS}:{port}", "--loglevel", "none"]
    process = spawn(HERE, options.badvpn, "--tundev", DEVICE, *netif, *socks)
    time.sleep(0.5)
    return [process]


VARIANTS = {
    "kernel": by_tun("--tcp-stack", "kernel"),
    "lwip": by_tun("--tcp-stack", "lwip"),
    "lwip, no offload": by_tun("--tcp-stack", "lwip", "--offload", "off"),
    "lwip, unix:": by_unix,
}
if options.hev:
    VARIANTS["hev"] = hev
if options.badvpn:
    VARIANTS["badvpn"] = badvpn
if options.only:
    VARIANTS = {name: VARIANTS[name] for name in options.only.split(";")}


def cpu(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def end(processes):
    for process in processes:
        stop(process)
    until(lambda: not has_device() or not sh("ip", "-n", HERE, "link", "del", DEVICE, check=False), "end of the device")
    until(lambda: not has_device(), "end of the device")


def listens(port):
    return f":{port} " in sh("ip", "netns", "exec", THERE, "ss", "-Hltn")


def measure(process, streams, way):
    # A server of its own: one that serves run after run may still be busy with the last, whose end is on its way, and refuse this one.
    server = spawn(THERE, "iperf3", "-s", "-1", "-B", TARGET, "-p", f"{IPERF3_PORT}")
    until(lambda: listens(IPERF3_PORT), "iperf3 server")
    before = cpu(process)
    argv = ["iperf3", "-J", "-c", TARGET, "-p", f"{IPERF3_PORT}", "-t", f"{options.seconds}", "-P", f"{streams}", *way]
    run = subprocess.run(["ip", "netns", "exec", HERE, "timeout", "20", *argv], capture_output=True, text=True)
    used = cpu(process) - before
    stop(server)
    try:
        report = json.loads(run.stdout)
    except ValueError:
        raise SystemExit(f"iperf3 ended with {run.returncode} and no report: {run.stdout[-300:]}{run.stderr[-300:]}")
    if "error" in report:
        raise SystemExit(f"iperf3 failed: {report['error']}")
    bits = report["end"]["sum_received"]
    gigabits = bits["bytes"] * 8 / 1e9
    return bits["bits_per_second"] / 1e9, used / gigabits


def hold(process):
    before = memory(process)
    script = os.path.join(ROOT, "test/e2e/peers/tun/many-flows.py")
    argv = ["ip", "netns", "exec", HERE, "python3", script, "hold", TARGET, "7", f"{IDLE_FLOWS}"]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = holder.stdout.readline()
    used = memory(process) - before
    holder.stdin.close()
    holder.wait(30)
    return used / IDLE_FLOWS if line.startswith("holding") else None


def table(title, rows, cell):
    print(f"\n{title}\n")
    print("| | " + " | ".join(VARIANTS) + " |")
    print("| --- |" + " ---: |" * len(VARIANTS))
    for row in rows:
        print(f"| {row} | " + " | ".join(cell(name, row) for name in VARIANTS) + " |")


try:
    for namespace in (HERE, THERE):
        sh("ip", "netns", "add", namespace)
        sh("ip", "-n", namespace, "link", "set", "lo", "up")
    sh("ip", "link", "add", "veth0", "mtu", "65000", "netns", HERE, "type", "veth", "peer", "name", "veth0", "netns", THERE)
    for namespace, address in ((HERE, "10.98.0.1/24"), (THERE, f"{SOCKS}/24")):
        sh("ip", "-n", namespace, "addr", "add", address, "dev", "veth0")
        sh("ip", "-n", namespace, "link", "set", "veth0", "mtu", "65000", "up")
    sh("ip", "-n", THERE, "addr", "add", f"{TARGET}/32", "dev", "lo")
    config = os.path.join(directory, "danted.conf")
    with open(config, "w") as file:
        file.write(DANTED_CONFIG)
    spawn(THERE, "danted", "-f", config, "-p", os.path.join(directory, "danted.pid"))
    spawn(THERE, "microsocks", "-i", SOCKS, "-p", f"{MICROSOCKS}")
    spawn(THERE, "python3", os.path.join(ROOT, "test/e2e/targets/tcp-target.py"), TARGET, "7", "echo")
    time.sleep(1)
    results, held = {}, {}
    ways = [("up", 1, []), ("up", 8, []), ("down", 1, ["-R"]), ("down", 8, ["-R"])]
    for mtu, _, (name, start) in itertools.product(options.mtus.split(","), range(options.rounds), VARIANTS.items()):
        processes = start(int(mtu), DANTED)
        time.sleep(0.3)
        for way, streams, flags in ways:
            results.setdefault((name, f"MTU {mtu}, {streams} {way}"), []).append(measure(processes[0], streams, flags))
        end(processes)
        if mtu == "1500" and name not in held and not options.no_idle:
            processes = start(1500, MICROSOCKS)
            time.sleep(0.3)
            held[name] = hold(processes[0])
            end(processes)
        print(f"{mtu} {name}", file=sys.stderr, flush=True)
    rows = [f"MTU {mtu}, {streams} {way}" for mtu in options.mtus.split(",") for way, streams, _ in ways]

    def of(name, row, index):
        return f"{statistics.median(result[index] for result in results[name, row]):.2f}"

    table("Gbit/s", rows, lambda name, row: of(name, row, 0))
    table("CPU of tun2socks, seconds a gigabit", rows, lambda name, row: of(name, row, 1))
    table("Memory", [f"bytes for each of {IDLE_FLOWS} idle flows"],
          lambda name, _: "-" if held.get(name) is None else f"{held[name]:.0f}")
finally:
    for namespace in (HERE, THERE):
        # danted has children.
        for pid in subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)
