import { IPV6_ADDRESS_BYTES } from "../../wire/socket-address.ts";

/**
 * Packets for a device. Each is either in `input`, the caller's buffer in which it was rewritten in place, or in `arena`, the machine's
 * memory; `isInput` says which. The host calls {@link clear} once the device has accepted them.
 */
export class PacketBatch {
  input: Uint8Array = new Uint8Array(0);
  readonly arena: Uint8Array;
  /** First free byte of the arena. */
  arenaEnd = 0;
  count = 0;
  /** How often the batch has been cleared. */
  generation = 0;
  /** True if any entry is in `input`. */
  hasInput = false;
  /** 1: in `input`, 0: in `arena`. */
  readonly isInput: Uint8Array;
  readonly offset: Int32Array;
  readonly length: Int32Array;

  /** @param capacity  in packets @param arenaBytes  memory for packets that are built here */
  constructor(capacity: number, arenaBytes: number) {
    this.arena = new Uint8Array(arenaBytes);
    this.isInput = new Uint8Array(capacity);
    this.offset = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
  }

  /** The buffer that holds entry `index`, from `offset[index]`. */
  buffer(index: number): Uint8Array {
    return this.isInput[index] === 1 ? this.input : this.arena;
  }

  hasRoom(packets: number, bytes: number): boolean {
    return this.count + packets <= this.offset.length && this.arenaEnd + bytes <= this.arena.length;
  }

  add(isInput: 0 | 1, offset: number, length: number): number {
    const index = this.count++;
    if (isInput === 1) this.hasInput = true;
    this.isInput[index] = isInput;
    this.offset[index] = offset;
    this.length[index] = length;
    return index;
  }

  clear(): void {
    this.count = 0;
    this.arenaEnd = 0;
    this.hasInput = false;
    this.generation++;
  }
}

/**
 * Datagrams that arrived as packets from a device: payloads in `input` or `arena` as above, with the association's slot,
 * the remote address and the DSCP of each.
 */
export class InnerDatagramBatch extends PacketBatch {
  readonly association: Int32Array;
  /** Remote addresses, each at `index * ADDRESS_STRIDE`, in the form of wire/socket-address (7 or 19 bytes). */
  readonly addresses: Uint8Array;
  readonly addressLength: Uint8Array;
  readonly dscp: Uint8Array;

  constructor(capacity: number, arenaBytes: number) {
    super(capacity, arenaBytes);
    this.association = new Int32Array(capacity);
    this.addresses = new Uint8Array(capacity * ADDRESS_STRIDE);
    this.addressLength = new Uint8Array(capacity);
    this.dscp = new Uint8Array(capacity);
  }
}

export const ADDRESS_STRIDE = IPV6_ADDRESS_BYTES;
