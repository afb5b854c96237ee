import type { Endpoint } from "../addresses/endpoint.ts";

/** One use of a running plugin; equal plugins share the program. */
export interface PluginUse {
  /** True until {@link accepted}: a refused connection may only mean that the program does not listen yet. */
  readonly isStarting: boolean;
  /** Starts the program unless it runs. @returns the address it listens on. @throws Error with the reason when it has ended */
  endpoint(): Promise<Endpoint>;
  /** Call this when the program has accepted a connection. */
  accepted(): void;
  /** Ends the program if nothing else uses it. Resolves when it has ended. */
  release(): Promise<void>;
}
