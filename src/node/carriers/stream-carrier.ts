import type { Duplex } from "node:stream";
import type { Carrier } from "../../host/carriers/carrier.ts";
import type { Io } from "../../host/io/io.ts";
import { PlainStream } from "../io/byte-stream-plain.ts";

/** A carrier that the embedding program provides. */
export function streamCarrier(
  open: (signal: AbortSignal) => Duplex | Promise<Duplex>,
  { native }: Io,
): Carrier {
  return {
    description: "the caller's stream",
    authority: "localhost",
    isLocal: false,
    connect: async (cancellation) => {
      const abort = new AbortController();
      cancellation.onCancel(() => abort.abort());
      return { stream: new PlainStream(await open(abort.signal), native) };
    },
    close: async () => {},
  };
}
