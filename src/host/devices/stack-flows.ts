import type { FlowEnd } from "../../core/tun2socks/tcp/tcp-segments.ts";
import type { Tun2Socks } from "../../core/tun2socks/tun2socks.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { StackTurn } from "../stream/byte-stream-stack.ts";
import { StackStream } from "../stream/byte-stream-stack.ts";
import type { SystemErrors } from "../system.ts";
import type { Device } from "./device.ts";
import type { ConnectFlow, FlowRelayOptions } from "./flow-relay.ts";
import { FlowRelay } from "./flow-relay.ts";
import type { TcpStack } from "./tcp-stack.ts";
import {
  STACK_ACCEPTED,
  STACK_BYTES,
  STACK_CLOSED,
  STACK_ENDED,
  STACK_EVENT_INTS,
  STACK_WRITABLE,
} from "./tcp-stack.ts";

export interface StackFlowsOptions {
  readonly core: () => Tun2Socks;
  readonly stack: TcpStack;
  readonly device: Device;
  readonly system: Loop & SystemErrors;
  readonly log: Logger;
  readonly connect: ConnectFlow;
  readonly pacing: FlowRelayOptions["pacing"];
  /** The time of this turn of the loop, at whose end {@link StackFlows.flush} is called. */
  readonly turnAt: () => number;
}

/** TCP flows that a {@link TcpStack} terminates. */
export class StackFlows implements StackTurn {
  readonly #options: StackFlowsOptions;
  readonly #relay: FlowRelay;
  /** By flow, as long as events of it may come. */
  readonly #streams: (StackStream | undefined)[] = [];
  #isDelivering = false;
  #isWriting = false;
  #isClosed = false;
  deviceDrops = 0;

  constructor(options: StackFlowsOptions) {
    this.#options = options;
    this.#relay = new FlowRelay({
      log: options.log,
      loop: options.system,
      connect: options.connect,
      pacing: options.pacing,
      onClosed: (flow) => options.core().endFlow(options.turnAt(), flow),
      refuse: (_flow, near) => near.reset(),
    });
  }

  // StackTurn

  now(): number {
    return this.#options.turnAt();
  }

  onDropped(flow: number): void {
    this.#streams[flow] = undefined;
    this.#options.core().forgetFlow(flow);
  }

  /** Gives the stack core's segments, which are in `input`. */
  handleSegments(now: number, input: Uint8Array): void {
    const { core, stack } = this.#options;
    stack.handleSegments(now, core().segments, input);
  }

  handleTimeout(now: number): void {
    if (!this.#isClosed) this.#options.stack.handleTimeout(now);
  }

  nextTimeout(): number {
    return this.#isClosed ? Number.POSITIVE_INFINITY : this.#options.stack.nextTimeout();
  }

  /** Reports events of flows, and writes the stack's packets to the device as long as that accepts them. */
  flush(): void {
    this.#deliver();
    this.#write();
  }

  /** Core forgot a flow before the stack did. */
  forget(flow: number, reason: FlowEnd): void {
    const stream = this.#streams[flow];
    this.#streams[flow] = undefined;
    this.#relay.forget(flow);
    if (this.#isClosed) return;
    // A flow that nobody has accepted yet may be a scan, which gets no answer.
    this.#options.stack.drop(flow, stream !== undefined && reason !== "finished");
    stream?.handleDropped();
  }

  /** Resets all flows, and frees the stack. */
  close(): void {
    this.#options.turnAt();
    for (const stream of this.#streams) stream?.reset();
    this.#write();
    this.#isClosed = true;
    this.#options.stack.close();
  }

  #deliver(): void {
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    const { stack } = this.#options;
    while (!this.#isClosed) {
      const count = stack.pollEvents();
      if (count === 0) break;
      for (let at = 0; at < count * STACK_EVENT_INTS; at += STACK_EVENT_INTS) this.#handleEvent(at);
    }
    this.#isDelivering = false;
  }

  #handleEvent(at: number): void {
    const { stack, core } = this.#options;
    const { events, received } = stack;
    const flow = events[at];
    const first = events[at + 2];
    const stream = this.#streams[flow];
    switch (events[at + 1]) {
      case STACK_ACCEPTED:
        this.#accept(flow);
        break;
      case STACK_BYTES:
        stream?.handleReceived(received.subarray(first, first + events[at + 3]));
        break;
      case STACK_ENDED:
        stream?.handleEnded();
        break;
      case STACK_WRITABLE:
        stream?.handleWritable();
        break;
      case STACK_CLOSED:
        this.#streams[flow] = undefined;
        stream?.handleGone(first);
        core().forgetFlow(flow);
    }
  }

  #accept(flow: number): void {
    const { core, stack, system } = this.#options;
    const accepted = core().acceptStackFlow(this.now(), flow);
    if (accepted === undefined) {
      stack.drop(flow, true);
      return;
    }
    const stream = new StackStream(stack, flow, accepted.source, accepted.target, this, system);
    this.#streams[flow] = stream;
    this.#relay.accept(accepted, stream);
  }

  #write(): void {
    if (this.#isWriting || this.#isClosed) return;
    this.#isWriting = true;
    const { stack, device } = this.#options;
    while (device.isBlocked?.() !== true && stack.pollPackets() > 0) {
      this.deviceDrops += device.write(stack.packets);
    }
    this.#isWriting = false;
  }
}
