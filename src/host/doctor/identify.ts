import { utf8Bytes } from "../../wire/http/http-head.ts";
import { Cancellation } from "../cancellation.ts";
import type { Carrier } from "../carriers/carrier.ts";
import { wait } from "../loop.ts";
import type { System } from "../system.ts";

/** Time limits for a server that speaks first, and for one that is asked. */
const BANNER_MS = 500;
const ANSWER_MS = 1_500;
const MAX_BYTES = 1_024;
/** Limit of the quoted part of an answer. */
const MAX_QUOTE = 120;
const SOCKS5_GREETING = Uint8Array.of(5, 1, 0);

/** The program that answers in udp-server's place, identified by its first bytes. */
export interface Identity {
  readonly what: string;
  /** How it was recognised. */
  readonly evidence: string;
  /** A web server, a SOCKS5 proxy. */
  readonly kind: "banner" | "web" | "socks5" | "tls";
  /** The beginning of the answer. */
  readonly answer: string;
}

interface Answer {
  readonly bytes: Uint8Array;
  readonly isClosed: boolean;
}

/** Identifies the program at the end of a way. @returns undefined if nothing answers */
export async function identify(system: System, open: () => Carrier): Promise<Identity | undefined> {
  const ask = (request: Uint8Array | undefined, ms: number) => askOnce(system, open(), request, ms);
  const [banner, web, socks] = await Promise.all([
    ask(undefined, BANNER_MS),
    ask(utf8Bytes("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), ANSWER_MS),
    ask(SOCKS5_GREETING, ANSWER_MS),
  ]);
  if (banner !== undefined && banner.bytes.length > 0) {
    const text = printable(banner.bytes);
    return { kind: "banner", what: nameOf(text), evidence: `it begins with "${text}"`, answer: text };
  }
  if (web !== undefined && web.bytes.length > 0) {
    if (web.bytes[0] === 0x15)
      return { kind: "tls", what: "a TLS server", evidence: "it answers GET with a TLS alert", answer: "" };
    const text = printable(web.bytes);
    if (text.startsWith("HTTP/")) {
      const server = /\bServer: ([^.]*?)(?=\.\.|$)/i.exec(text)?.[1];
      const status = text.slice(0, 40).split("..")[0];
      return {
        kind: "web",
        what: server === undefined ? "a web server" : `a web server (${server})`,
        evidence: `it answers GET / with "${status}"`,
        answer: printable(web.bytes, MAX_BYTES),
      };
    }
    return { kind: "banner", what: nameOf(text), evidence: `it answers GET / with "${text}"`, answer: text };
  }
  if (socks?.bytes[0] === 5 && socks.bytes.length === 2) {
    return {
      kind: "socks5",
      what: "a SOCKS5 proxy",
      evidence: "it answers a SOCKS5 greeting",
      answer: "",
    };
  }
  return undefined;
}

/** Whether the other end closes a connection without an answer after something is sent. */
export async function closes(system: System, carrier: Carrier): Promise<boolean> {
  const answer = await askOnce(system, carrier, SOCKS5_GREETING, ANSWER_MS);
  return answer?.isClosed === true && answer.bytes.length === 0;
}

/** @returns the bytes that arrived; undefined if there was no connection */
async function askOnce(
  system: System,
  carrier: Carrier,
  request: Uint8Array | undefined,
  ms: number,
): Promise<Answer | undefined> {
  try {
    const { stream } = await carrier.connect(new Cancellation());
    const bytes = new Uint8Array(MAX_BYTES);
    let length = 0;
    let isClosed = false;
    let finish = () => {};
    const ended = new Promise<void>((done) => {
      finish = done;
    });
    const close = () => {
      isClosed = true;
      finish();
    };
    stream.start({
      onBytes: (chunk, count) => {
        const taken = Math.min(count, MAX_BYTES - length);
        bytes.set(chunk.subarray(0, taken), length);
        length += taken;
        finish();
      },
      onEnd: close,
      onWritten: () => {},
      onClose: close,
    });
    if (request !== undefined) stream.write(request);
    await Promise.race([ended, wait(system, ms)]);
    stream.destroy();
    return { bytes: bytes.subarray(0, length), isClosed };
  } catch {
    return undefined;
  } finally {
    await carrier.close();
  }
}

function printable(bytes: Uint8Array, most = MAX_QUOTE): string {
  const text = String.fromCharCode(...bytes.subarray(0, most));
  return text.replace(/[^\x20-\x7e]/g, ".").trim();
}

function nameOf(text: string): string {
  if (text.startsWith("SSH-")) return "an SSH server";
  if (/^220[ -]/.test(text)) return "a mail or FTP server";
  if (/^(?:\+OK|\* OK)/.test(text)) return "a mail server";
  if (/^-(?:ERR|NOAUTH|DENIED)/.test(text)) return "a Redis server";
  return "another server";
}
