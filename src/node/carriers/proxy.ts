import type { Duplex } from "node:stream";
import type { ConnectHandshake } from "../../core/connect-handshake.ts";
import { HostError } from "../../core/errors.ts";

/** Runs a handshake on a stream to a proxy. Afterwards the stream leads to the target, paused and with nothing read. */
export function shakeHands(stream: Duplex, handshake: ConnectHandshake, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const finish = (error: Error | undefined, surplus?: Uint8Array) => {
      stream.off("data", handleData);
      stream.off("error", finish);
      stream.off("end", handleEnd);
      stream.off("close", handleEnd);
      signal.removeEventListener("abort", handleAbort);
      if (error !== undefined) {
        stream.on("error", () => {});
        stream.destroy();
        failed(error);
        return;
      }
      stream.pause();
      if (surplus !== undefined && surplus.length > 0) stream.unshift(surplus);
      done();
    };
    const handleEnd = () => finish(new HostError("ERR_CONNECTION_LOST", "by the proxy"));
    const handleAbort = () => finish(new HostError("ERR_CONNECT", "given up"));
    const handleData = (bytes: Uint8Array) => {
      let result = handshake.handleStream(bytes);
      while (result instanceof Uint8Array) {
        stream.write(result);
        result = handshake.handleStream(new Uint8Array(0));
      }
      if (result === "need") return;
      if (result.kind === "failed") finish(result.error);
      else finish(undefined, result.surplus);
    };
    stream.on("data", handleData);
    stream.on("error", finish);
    stream.on("end", handleEnd);
    stream.on("close", handleEnd);
    signal.addEventListener("abort", handleAbort);
    // The previous hop has left it paused.
    stream.resume();
    stream.write(handshake.start());
  });
}
