import { copyOf } from "../../core/copy-bytes.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import type { TcpStack } from "../devices/tcp-stack.ts";
import type { SystemErrors } from "../system.ts";
import { ListenedStream } from "./byte-stream.ts";

/** What a stream needs from the stack's owner. */
export interface StackTurn {
  /** The time of this turn of the loop, at whose end the stack's packets and events are polled. */
  now(): number;
  /** A flow was dropped, and its number may be reused. */
  onDropped(flow: number): void;
}

const NOTHING = new Uint8Array(0);

/** A byte stream over a connection of a {@link TcpStack}. */
export class StackStream extends ListenedStream {
  readonly reusesMemory = true;
  readonly localIp: string;
  readonly remoteIp: string;
  readonly remotePort: number;
  readonly #stack: TcpStack;
  readonly #flow: number;
  readonly #turn: StackTurn;
  readonly #errors: SystemErrors;
  /** Bytes on loan until the stack accepts them; empty if it has accepted all but has no room for more. */
  #unwritten: Uint8Array | undefined;
  #state: "open" | "ended" | "closed" = "open";

  constructor(
    stack: TcpStack,
    flow: number,
    source: AddressBytes,
    target: AddressBytes,
    turn: StackTurn,
    errors: SystemErrors,
  ) {
    super();
    this.#stack = stack;
    this.#flow = flow;
    this.#turn = turn;
    this.#errors = errors;
    this.localIp = formatHost(target);
    this.remoteIp = formatHost(source);
    this.remotePort = addressPort(source);
  }

  get isClosed(): boolean {
    return this.#state !== "open";
  }

  write(bytes: Uint8Array, _hasMore = false, isBorrowed = false): boolean {
    if (this.#state === "closed") return true;
    const { native, id } = this.#stack;
    const written = native.tcpStackWrite!(id, this.#turn.now(), this.#flow, bytes, bytes.length);
    // If the flow is gone, that is about to be reported.
    if (written < 0) return true;
    if (written === bytes.length) {
      if (!native.tcpStackIsFull!(id, this.#flow)) return true;
      this.#unwritten = NOTHING;
      return false;
    }
    const rest = bytes.subarray(written);
    this.#unwritten = isBorrowed ? copyOf(rest) : rest;
    return false;
  }

  end(): void {
    if (this.#state !== "open") return;
    if (this.hasPeerEnded) {
      // The stack sends what it has accepted.
      this.destroy();
      return;
    }
    this.#state = "ended";
    const { native, id } = this.#stack;
    native.tcpStackEnd!(id, this.#turn.now(), this.#flow);
  }

  destroy(): void {
    if (!this.#leave()) return;
    const { native, id } = this.#stack;
    native.tcpStackClose!(id, this.#turn.now(), this.#flow);
  }

  reset(): void {
    if (!this.#leave()) return;
    this.#turn.now();
    this.#stack.drop(this.#flow, true);
    this.#turn.onDropped(this.#flow);
  }

  tune(): void {}

  /** The flow was dropped by something else. */
  handleDropped(): void {
    this.#leave();
  }

  /** Bytes arrived; they are borrowed. */
  handleReceived(bytes: Uint8Array): void {
    if (this.#state !== "closed") this.handleBytes(bytes, bytes.length);
  }

  handleEnded(): void {
    if (this.#state === "closed") return;
    const hasOwnEnded = this.#state === "ended";
    this.handleEnd();
    if (hasOwnEnded) this.destroy();
  }

  handleWritable(): void {
    const bytes = this.#unwritten;
    this.#unwritten = undefined;
    if (bytes !== undefined && (bytes.length === 0 || this.write(bytes))) this.handleWritten();
  }

  /** The connection is gone. @param error  a system error, or 0 */
  handleGone(error: number): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#unwritten = undefined;
    if (error === 0) {
      this.handleClose(undefined);
      return;
    }
    const code = this.#errors.errorName(error);
    this.handleClose(Object.assign(new Error(`read ${code}`), { code }));
  }

  protected override setReading(isReading: boolean): void {
    if (this.#state === "closed") return;
    // The stack's packets and events are reported at the end of this turn.
    this.#turn.now();
    const { native, id } = this.#stack;
    native.tcpStackPause!(id, this.#flow, !isReading);
  }

  #leave(): boolean {
    if (this.#state === "closed") return false;
    this.#state = "closed";
    this.#unwritten = undefined;
    void Promise.resolve().then(() => this.handleClose(undefined));
    return true;
  }
}
