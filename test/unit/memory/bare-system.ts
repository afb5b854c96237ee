import type { System } from "../../../src/host/system.ts";

type BareSystem = Omit<System, "now" | "unixMs" | "after" | "nextTurn" | "io">;

/**
 * The parts of a system in memory that know no sockets and no time: MACs that need no cipher, and no names, interfaces or files. It uses
 * nothing but ECMAScript.
 *
 * @param randomByte  0 to 255
 */
export function bareSystem(randomByte: () => number): BareSystem {
  return {
    cryptography: {
      random: (length) => Uint8Array.from({ length }, randomByte),
      hmac: (key, data) => {
        const mac = new Uint8Array(32);
        for (const [i, byte] of [...key, ...data].entries()) mac[i % 32] = mac[i % 32] * 31 + byte;
        return mac;
      },
    },
    shadowsocks: undefined,
    errorName: String,
    errorText: String,
    lookUp: async (name) => {
      throw new Error(`no such name: ${name}`);
    },
    nameservers: () => [],
    interfaces: () => [],
    descriptorLimit: () => Number.POSITIVE_INFINITY,
    readFile: (path) => {
      throw new Error(`no such file: ${path}`);
    },
  };
}
