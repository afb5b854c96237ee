import type { NativeModule } from "../../host/io/native-module.ts";
import type { UdpIo } from "../../host/io/udp-io.ts";
import { openNativeUdpIo } from "../../host/io/udp-io-native.ts";
import { nodeLoop } from "../system.ts";

let only: UdpIo | undefined;

/** The only instance of this thread. */
export function nativeUdpIo(native: NativeModule): UdpIo {
  only ??= openNativeUdpIo(native, nodeLoop);
  return only;
}
