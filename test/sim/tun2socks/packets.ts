import type { Written } from "./device.ts";
import { VIRTIO_BYTES } from "./device.ts";

export const SYN = 2;
export const ACK = 16;
export const FIN = 1;
export const RST = 4;
export const PSH = 8;

export const HELLO = Buffer.from("hello");
/** An application and a target, in both families. */
export const FAMILIES = [
  { family: 4, app: "10.0.0.9", target: "192.0.2.7", other: "198.51.100.3" },
  { family: 6, app: "fd00::9", target: "2001:db8::7", other: "2001:db8:1::3" },
] as const;
export const at = (host: string, port: number) =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;

/** The data of all fragments, reassembled as the receiver's kernel does. */
export function join(written: readonly Written[]): Buffer {
  const pieces = written.toSorted((a, b) => a.fragment!.offset - b.fragment!.offset);
  let expected = 0;
  for (const [i, { fragment, message }] of pieces.entries()) {
    if (fragment?.offset !== expected || fragment.more !== i < pieces.length - 1) throw new Error("a gap");
    if (fragment.id !== pieces[0].fragment!.id) throw new Error("identification");
    expected += message.length;
  }
  return Buffer.concat(pieces.map(({ message }) => message));
}

export function virtioHeader(
  flags: number,
  gsoType: number,
  headerLength: number,
  gsoSize: number,
  start: number,
  offset: number,
) {
  const header = Buffer.alloc(VIRTIO_BYTES);
  header[0] = flags;
  header[1] = gsoType;
  for (const [i, value] of [headerLength, gsoSize, start, offset].entries())
    header.writeUInt16LE(value, 2 + i * 2);
  return header;
}
