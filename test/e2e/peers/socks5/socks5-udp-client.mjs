// SOCKS5 UDP ASSOCIATE without authentication (RFC 1928), on plain node:net and node:dgram, without code of this project.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, isIP } from "node:net";

/** Bytes of an address such as 192.0.2.1 or 2001:db8::1. */
function ipBytes(host) {
  if (isIP(host) === 4) return Buffer.from(host.split(".").map(Number));
  const [head, tail] = host.split("::").map((part) => (part === "" ? [] : part.split(":")));
  const zeros = tail === undefined ? 0 : 8 - head.length - tail.length;
  const groups = [...head, ...Array(zeros).fill("0"), ...(tail ?? [])];
  return Buffer.from(
    groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]),
  );
}

/** ATYP, address, port (RFC 1928 section 5). A host that is not an IP address is sent as a domain name. */
function encodeAddress({ host, port }) {
  const family = isIP(host);
  const body = family ? ipBytes(host) : Buffer.concat([Buffer.from([host.length]), Buffer.from(host)]);
  return Buffer.concat([
    Buffer.from([{ 4: 1, 6: 4, 0: 3 }[family]]),
    body,
    Buffer.from([port >> 8, port & 255]),
  ]);
}

/** Length of the address at `bytes[3]`, which follows VER REP RSV as well as RSV RSV FRAG. */
function addressLength(bytes) {
  return 1 + { 1: 4, 3: 1 + bytes[4], 4: 16 }[bytes[3]] + 2;
}

/** Reads exactly `length` bytes. */
async function read(socket, length) {
  for (;;) {
    const bytes = socket.read(length);
    if (bytes !== null) return bytes;
    await once(socket, "readable");
    if (socket.readableEnded) throw new Error("the SOCKS5 server closed the connection");
  }
}

/**
 * Associates with the SOCKS5 server `proxy`, {host, port}. `onDatagram(payload, source)` gets incoming datagrams; `source` is the encoded
 * address of the header, to compare with `encodeAddress`.
 */
export async function associate(proxy, onDatagram) {
  const control = connect(proxy.port, proxy.host);
  await once(control, "connect");
  control.write(Buffer.from([5, 1, 0]));
  const [, method] = await read(control, 2);
  if (method !== 0) throw new Error(`SOCKS5 method ${method}`);
  const anywhere = isIP(proxy.host) === 6 ? "::" : "0.0.0.0";
  control.write(Buffer.concat([Buffer.from([5, 3, 0]), encodeAddress({ host: anywhere, port: 0 })]));
  const head = await read(control, 5);
  if (head[1] !== 0) throw new Error(`SOCKS5 reply ${head[1]}`);
  const reply = Buffer.concat([head, await read(control, 3 + addressLength(head) - head.length)]);
  // BND.ADDR is the proxy's address or "the same as the control connection's"; in these tests they are one.
  const relayPort = reply.readUInt16BE(reply.length - 2);

  const udp = createSocket({ type: isIP(proxy.host) === 6 ? "udp6" : "udp4", recvBufferSize: 1 << 22 });
  udp.on("message", (packet) => {
    if (packet[2] !== 0) throw new Error("a fragment came back");
    const end = 3 + addressLength(packet);
    onDatagram(packet.subarray(end), packet.subarray(3, end));
  });
  return {
    send(payload, target) {
      const packet = Buffer.concat([Buffer.from([0, 0, 0]), encodeAddress(target), payload]);
      udp.send(packet, relayPort, proxy.host);
    },
    close() {
      udp.close();
      control.destroy();
    },
  };
}

export { encodeAddress };
