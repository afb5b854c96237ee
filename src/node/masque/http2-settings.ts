/** Payload bytes of one request that may be in flight, or wait here; the sender drops what waits too long. */
const STREAM_WINDOW_BYTES = 1_048_576;
/** The same for all requests of a connection. */
export const CONNECTION_WINDOW_BYTES = 4_194_304;
/** Longest head of a message, in the count of RFC 9113 §6.5.2; as over HTTP/1.1. */
const MAX_HEADER_LIST_BYTES = 8_192;

/** Codes of RFC 9113 §7. node:http2 also has them, but is loaded only with the first connection. */
export const NGHTTP2_NO_ERROR = 0;
export const NGHTTP2_CANCEL = 8;
export const NGHTTP2_ENHANCE_YOUR_CALM = 11;

/** SETTINGS of either end. */
export const COMMON_SETTINGS = {
  enablePush: false,
  initialWindowSize: STREAM_WINDOW_BYTES,
  maxHeaderListSize: MAX_HEADER_LIST_BYTES,
} as const;

/**
 * Limits of node:http2 for a connection of either end, besides nghttp2's own limits of resets, acknowledgements and CONTINUATION.
 */
export const SESSION_LIMITS = {
  /** Limit of state and unsent data, in units of 1,000,000 bytes. */
  maxSessionMemory: 32,
  maxHeaderListPairs: 64,
  maxSettings: 32,
  maxOutstandingPings: 4,
  maxSessionInvalidFrames: 16,
  maxSessionRejectedStreams: 64,
} as const;
