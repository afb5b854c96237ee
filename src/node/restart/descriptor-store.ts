import { closeSync, fstatSync, readSync } from "node:fs";
import { decodeKeptSessions, encodeKeptSessions } from "../../core/server/restart/kept-sessions.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { Logger } from "../../host/log.ts";
import type { HandingOnModule, KeptState } from "../../host/restart/kept-state.ts";
import { passedDescriptors } from "../passed-descriptors.ts";

/** Names of descriptors in the store. They are short because LISTEN_FDNAMES, which contains one for each, is limited to 128 KiB. */
const STATE_NAME = "sessions";
const SOCKET_NAME = "udp";
/** Limit of descriptors in one message on Linux (SCM_MAX_FD). */
const MAX_DESCRIPTORS = 253;
const NOT_RESTORED = "does not go on with earlier sessions";
const TIMEOUT_MS = 5_000;
const MAX_STATE_BYTES = 1 << 30;

type StoringModule = HandingOnModule &
  Required<Pick<NativeModule, "serviceNotify" | "serviceBarrier" | "sealedMemory">>;

/**
 * The file descriptor store of systemd (sd_pid_notify_with_fds(3), FileDescriptorStoreMax=), which keeps descriptors while a service
 * restarts: the state of a server's sessions, in sealed memory, and the UDP sockets of their associations.
 */
export class DescriptorStore {
  readonly #native: StoringModule;
  readonly #manager: string;
  readonly #log: Logger;

  private constructor(native: StoringModule, manager: string, log: Logger) {
    this.#native = native;
    this.#manager = manager;
    this.#log = log;
  }

  /** @returns undefined, and logs the reason, if there is no store */
  static open(native: NativeModule | undefined, log: Logger): DescriptorStore | undefined {
    const { NOTIFY_SOCKET } = process.env;
    const isAble = native?.udpAdopt !== undefined && native.sealedMemory !== undefined;
    if (isAble && NOTIFY_SOCKET) return new DescriptorStore(native as StoringModule, NOTIFY_SOCKET, log);
    const reason = isAble
      ? "this is not a systemd service (NOTIFY_SOCKET is not set)"
      : "it needs native I/O on Linux";
    log.warn({}, `keep-sessions: has no effect: ${reason}`);
    return undefined;
  }

  get native(): HandingOnModule {
    return this.#native;
  }

  /** Takes the state that the previous process left. Only one process gets it, even if this one crashes because of it. */
  take(): KeptState[] {
    const memories = passedDescriptors(STATE_NAME);
    const sockets = passedDescriptors(SOCKET_NAME);
    if (memories.length === 0 && sockets.length === 0) return [];
    try {
      for (const name of [STATE_NAME, SOCKET_NAME]) this.#notify(`FDSTOREREMOVE=1\nFDNAME=${name}`, []);
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, NOT_RESTORED);
      for (const descriptor of [...memories, ...sockets]) this.#native.descriptorClose(descriptor);
      return [];
    }
    const states = memories.flatMap((descriptor) => this.#read(descriptor) ?? []);
    return [{ clock: 0, sessions: [], sockets }, ...states.map((state) => ({ ...state, sockets: [] }))];
  }

  #read(descriptor: number): ReturnType<typeof decodeKeptSessions> | undefined {
    try {
      return decodeKeptSessions(readAll(descriptor));
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, NOT_RESTORED);
      return undefined;
    } finally {
      closeSync(descriptor);
    }
  }

  /** Leaves sessions and their sockets for the next process, and closes the sockets here. */
  put(states: readonly KeptState[]): void {
    const native = this.#native;
    const sockets = states.flatMap((state) => state.sockets);
    const memories: number[] = [];
    try {
      // Before the sockets, because the store may not accept all of those.
      for (const { clock, sessions } of states) {
        if (sessions.length === 0) continue;
        memories.push(native.sealedMemory(encodeKeptSessions({ clock, sessions })));
        this.#notify(`FDSTORE=1\nFDNAME=${STATE_NAME}\nFDPOLL=0`, memories.slice(-1));
      }
      for (let at = 0; at < sockets.length; at += MAX_DESCRIPTORS) {
        // By default, the manager takes a socket with an ICMP error for one that has ended.
        this.#notify(`FDSTORE=1\nFDNAME=${SOCKET_NAME}\nFDPOLL=0`, sockets.slice(at, at + MAX_DESCRIPTORS));
      }
      native.serviceBarrier(this.#manager, TIMEOUT_MS);
      const sessions = states.reduce((sum, state) => sum + state.sessions.length, 0);
      this.#log.info({ sessions, sockets: sockets.length }, "left its sessions to the next process");
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, "cannot leave its sessions to the next process");
    } finally {
      for (const descriptor of [...memories, ...sockets]) native.descriptorClose(descriptor);
    }
  }

  /** @throws the system's error */
  #notify(message: string, descriptors: readonly number[]): void {
    this.#native.serviceNotify(this.#manager, message, Int32Array.from(descriptors), TIMEOUT_MS);
  }
}

/** @throws Error when the file is too long, or cannot be read */
function readAll(descriptor: number): Uint8Array {
  const { size } = fstatSync(descriptor);
  if (size > MAX_STATE_BYTES) throw new RangeError(`${size} bytes`);
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; ) {
    const count = readSync(descriptor, bytes, at, size - at, at);
    if (count === 0) throw new RangeError("it ended too early");
    at += count;
  }
  return bytes;
}
