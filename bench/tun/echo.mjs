// A device loop that echoes each UDP datagram: the parts between a TUN device and the core, with nothing behind them. Arguments: name, on or off for offload, own address, peer address, network. Prints "ready".
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import {
  ADDRESS_STRIDE,
  ROUTE_DIRECT,
  ROUTE_REJECT,
  TUN2SOCKS_LIMITS,
  Tun2Socks,
} from "../../dist/core/index.js";

const MTU = 1500;
const ARENA_BYTES = 2 * 1024 * 1024;
const ARENA_PACKETS = 1024;
const [name, offload, own, peer, network] = process.argv.slice(2);

const native = createRequire(import.meta.url)("node-gyp-build")("native");
const [descriptor, , hasFamily, virtio, uso] = native.tunOpen(name, offload === "on");
/** @param {string} text */
const bytes = (text) => Uint8Array.from(text.split("."), Number);
native.interfaceUp(name, MTU);
native.interfaceAddress(name, bytes(own), 30);
native.interfaceRoute(name, bytes(network), 24);

const core = new Tun2Socks({
  mtu: MTU,
  virtio,
  uso,
  ipv4: { own: bytes(own), peer: bytes(peer), listenerPort: 0 },
  ipv6: undefined,
  rules: [],
  udpRoute: ROUTE_DIRECT,
  tcpRoute: ROUTE_REJECT,
  limits: TUN2SOCKS_LIMITS,
  seed: 1,
});
const arena = new Uint8Array(ARENA_BYTES);
const offsets = new Int32Array(ARENA_PACKETS);
const lengths = new Int32Array(ARENA_PACKETS);
const { toDevice, datagrams } = core;

function write() {
  const { input, arena: built, isInput, offset, length, count } = toDevice;
  if (count > 0) native.tunWrite(descriptor, input, built, isInput, offset, length, count);
  toDevice.clear();
}

native.tunWatch(descriptor, hasFamily, arena, offsets, lengths, (/** @type {number} */ count) => {
  if (count <= 0) process.exit(1);
  const now = performance.now();
  for (let first = 0; first < count; ) {
    first = core.handlePackets(now, arena, offsets, lengths, first, count);
    write();
    while (core.pollOutput() !== undefined);
    for (let i = 0; i < datagrams.count; i++) {
      const at = i * ADDRESS_STRIDE;
      const remote = datagrams.addresses.subarray(at, at + datagrams.addressLength[i]);
      const { association, offset, length } = datagrams;
      const payload = datagrams.buffer(i);
      while (!core.handleDatagram(now, association[i], remote, payload, offset[i], length[i])) write();
    }
    write();
  }
});
console.log("ready");
