import { HostError } from "../../core/errors.ts";
import type { ConnectHandshake } from "../../core/handshakes/connect-handshake.ts";
import type { Cancellation } from "../cancellation.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { PatientWriter } from "../stream/patient-writer.ts";

const NOTHING = new Uint8Array(0);

/**
 * Runs a handshake on a stream to a proxy. Afterwards the stream leads to the target, to be handed on.
 *
 * @param onAnswer  called when the proxy has sent something
 */
export function shakeHands(
  stream: ByteStream,
  handshake: ConnectHandshake,
  cancellation: Cancellation,
  onAnswer: () => void = () => {},
): Promise<void> {
  return new Promise((done, failed) => {
    const writer = new PatientWriter(stream);
    const fail = (error: Error) => {
      leave();
      stream.destroy();
      failed(error);
    };
    const lost = (error?: Error) =>
      fail(error ?? new HostError("ERR_CONNECTION_LOST", "the proxy closed it"));
    const leave = cancellation.onCancel(() =>
      fail(new HostError("ERR_CONNECT", "the attempt was cancelled")),
    );
    stream.start({
      onBytes: (chunk, length) => {
        onAnswer();
        let result = handshake.handleStream(chunk.subarray(0, length));
        while (result instanceof Uint8Array) {
          writer.write(result);
          result = handshake.handleStream(NOTHING);
        }
        if (result === "need") return;
        if (result.kind === "failed") {
          fail(result.error);
          return;
        }
        stream.unread(result.surplus);
        writer.whenDrained(() => {
          leave();
          done();
        });
      },
      onEnd: () => lost(),
      onWritten: () => writer.handleWritten(),
      onClose: lost,
    });
    writer.write(handshake.start());
  });
}
