import { ProtocolError } from "../errors.ts";

export function obfsError(detail: string): ProtocolError {
  return new ProtocolError("ERR_OBFS_MALFORMED", detail);
}
