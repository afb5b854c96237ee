import { HostError } from "../../core/errors.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { Endpoint } from "../addresses/endpoint.ts";
import { formatEndpoint, splitZone } from "../addresses/endpoint.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import type { NativeModule } from "../io/native-module.ts";
import { lazyMemory, scopedAddress } from "../io/native-module.ts";
import type { SystemErrors } from "../system.ts";
import type { ByteStream } from "./byte-stream.ts";
import { DescriptorStream } from "./byte-stream-native.ts";
import type { ListenOptions, StreamListener, Tcp } from "./tcp.ts";
import { BACKLOG, KEEP_ALIVE_MS, UNIX_MODE } from "./tcp.ts";

const READ_BUFFER_BYTES = 262_144;

/** Connections over the native module. Each is a descriptor from the start, and all are read into one buffer. */
export class NativeTcp implements Tcp {
  readonly #native: NativeModule;
  readonly #errors: SystemErrors;
  #readBuffer: Uint8Array | undefined;

  constructor(native: NativeModule, errors: SystemErrors) {
    this.#native = native;
    this.#errors = errors;
  }

  adopt(descriptor: number): ByteStream {
    this.#readBuffer ??= lazyMemory(this.#native, READ_BUFFER_BYTES);
    return new DescriptorStream(this.#native, descriptor, this.#readBuffer, this.#errors);
  }

  connect(
    endpoint: Endpoint,
    outgoing: Outgoing | undefined,
    onDone: (result: ByteStream | string) => void,
  ): () => void {
    return connectNatively(this.#native, this.#errors, endpoint, outgoing, (result) =>
      onDone(typeof result === "string" ? result : this.adopt(result)),
    );
  }

  async listen(endpoint: Endpoint, options: ListenOptions): Promise<StreamListener> {
    const native = this.#native;
    const { sharesPort = false } = options;
    const { path } = endpoint;
    let address = "";
    const accept = this.#acceptor(options, () => address);
    const listener =
      path === undefined
        ? native.tcpListen!(scopedAddress(native, endpoint.host, endpoint.port), sharesPort, BACKLOG, accept)
        : native.unixListen!(path, UNIX_MODE, BACKLOG, accept);
    const port = path === undefined ? native.socketName!(listener, false)![1] : 0;
    address = path === undefined ? formatEndpoint(endpoint.host, port) : `unix:${path}`;
    return {
      address,
      port,
      close: async () => native.tcpUnlisten!(listener),
    };
  }

  async listenOn(descriptor: number, options: ListenOptions): Promise<StreamListener> {
    const native = this.#native;
    if (native.listenOn === undefined) throw new Error("this host cannot listen on a descriptor");
    let address = "";
    const listener = native.listenOn(
      descriptor,
      BACKLOG,
      this.#acceptor(options, () => address),
    );
    const [ip, port] = native.socketName!(listener, false) ?? [undefined, 0];
    address = ip === undefined ? `fd:${descriptor}` : formatEndpoint(ip, port);
    return {
      address,
      port,
      close: async () => native.tcpUnlisten!(listener),
    };
  }

  /** @returns a function that makes a stream of each accepted descriptor */
  #acceptor(
    { keepAliveMs = 0, onStream, onError }: ListenOptions,
    address: () => string,
  ): (result: number) => void {
    return (descriptor) => {
      if (descriptor < 0) {
        const reason = this.#errors.errorText(descriptor);
        onError(new HostError("ERR_LISTEN", `${address()}: ${reason}`), true);
        return;
      }
      this.#native.tcpKeepAlive!(descriptor, keepAliveMs / 1000);
      let stream: ByteStream;
      try {
        stream = this.adopt(descriptor);
      } catch (error) {
        this.#native.descriptorClose!(descriptor);
        onError(error as Error, false);
        return;
      }
      onStream(stream);
    };
  }
}

/** Like {@link Tcp.connect}, with a connected descriptor as the result. */
export function connectNatively(
  native: NativeModule,
  errors: SystemErrors,
  endpoint: Endpoint,
  outgoing: Outgoing | undefined,
  onDone: (result: number | string) => void,
): () => void {
  const { path } = endpoint;
  const handleDone = (result: number) => {
    if (result < 0) {
      onDone(errors.errorText(result));
      return;
    }
    if (path === undefined) native.tcpKeepAlive!(result, KEEP_ALIVE_MS / 1000);
    onDone(result);
  };
  let attempt: number;
  if (path === undefined) {
    const { host, port } = endpoint;
    const by =
      outgoing === undefined || isLoopback(makeAddress(splitZone(host).ip, port)!) ? undefined : outgoing;
    attempt = native.tcpConnect!(
      scopedAddress(native, host, port),
      by?.interfaceName ?? "",
      by?.mark ?? 0,
      handleDone,
    );
  } else attempt = native.unixConnect!(path, handleDone);
  return () => native.tcpConnectCancel!(attempt);
}
