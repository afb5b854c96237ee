import { AddressIndex } from "../../core/address-index.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import { writeUdpHeader } from "../../wire/socks5.ts";
import { Remote } from "../io/udp-io.ts";

const MAX_REMOTES = 16_384;

/** A remote address with the header that SOCKS5 puts before its datagrams. */
export class HeadedRemote extends Remote {
  #header: Uint8Array | undefined;

  get header(): Uint8Array {
    if (this.#header === undefined) {
      this.#header = new Uint8Array(3 + this.address.length);
      writeUdpHeader(this.#header, 0, this.address);
    }
    return this.#header;
  }
}

/** Remotes by address, so that a known one needs no allocation. The cache forgets all when there are too many. */
export class RemoteCache {
  readonly #seed: number;
  #index: AddressIndex;
  #remotes: HeadedRemote[] = [];

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#seed = seed;
    this.#index = new AddressIndex(seed);
  }

  get(bytes: Uint8Array, offset: number, length: number): HeadedRemote {
    const known = this.#index.find(0, bytes, offset, length);
    if (known >= 0) return this.#remotes[known];
    if (this.#remotes.length === MAX_REMOTES) {
      this.#index = new AddressIndex(this.#seed);
      this.#remotes = [];
    }
    const remote = new HeadedRemote(copyAddress(bytes, offset, length));
    this.#index.add(this.#remotes.length, 0, remote.address);
    this.#remotes.push(remote);
    return remote;
  }
}
