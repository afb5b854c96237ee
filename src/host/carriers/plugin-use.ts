import type { Endpoint } from "../addresses/endpoint.ts";

/** A use of a running plugin; equal ones share the program. */
export interface PluginUse {
  /** True until {@link accepted}: a refused connection may only mean that the program does not listen yet. */
  readonly isStarting: boolean;
  /** Starts the program unless it runs. @returns where it listens. @throws HostError ERR_CONNECT when it has ended */
  endpoint(): Promise<Endpoint>;
  /** To be called when the program has accepted a connection. */
  accepted(): void;
  /** Ends the program if no other use is left. Resolves when it has ended. */
  release(): Promise<void>;
}
