import { makeAddress } from "../../wire/socket-address.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import { parseHop } from "../carriers/hop.ts";
import { splitWay } from "../carriers/way.ts";
import type { ResolvedUdpLocalOptions } from "../options/udp-local.ts";
import type { DoctorSettings } from "./settings.ts";

/** Matches text that looks like an address: IPv4, and IPv6 with at least two colons. */
const IPV4 = /(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d*\.\d)(?!\w)/g;
const IPV6 =
  /(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})(?:%[\w.-]+)?(?![\w:])/gi;
const SHORTEST_SECRET = 4;

/** Removes what a report must not reveal to others. */
export class Redaction {
  /** The replacement for each text; the longest text first. */
  readonly #labels = new Map<string, string>();
  readonly #secrets: readonly string[];
  readonly #hidesAddresses: boolean;

  constructor(
    { ways, masque, tcpVia, socksAuth, forwards }: ResolvedUdpLocalOptions,
    { showAddresses, testDns, testEcho, testStun, testClock, testName }: DoctorSettings,
  ) {
    this.#hidesAddresses = showAddresses !== true;
    const secrets: (string | undefined)[] = [socksAuth?.user, socksAuth?.password];
    const hops = [...ways.map(({ via }) => via), ...tcpVia.map((text) => splitWay(text).via)].map((texts) =>
      texts.map(parseHop),
    );
    for (const [way, list] of hops.entries()) {
      for (const [index, hop] of list.entries()) {
        const number = `${way === 0 ? "" : `${way + 1}.`}${index + 1}`;
        if (hop.endpoint?.path === undefined && hop.endpoint !== undefined)
          this.#label(hop.endpoint.host, `HOP${number}`);
        if (hop.kind === "socks5" || hop.kind === "http") {
          secrets.push(
            hop.credentials?.user,
            hop.credentials?.password,
            ...hop.fields.map(([, value]) => value),
          );
        } else if (hop.kind === "ss") {
          secrets.push(hop.shadowsocks.password);
          this.#label(hop.shadowsocks.obfs?.host, `OBFS-HOST${number}`);
        } else if (hop.kind === "ws") {
          secrets.push(hop.request.path.slice(1), ...hop.request.fields.map(([, value]) => value));
          this.#label(hop.request.host.replace(/:\d+$/, ""), `HOP${number}`);
          this.#label(hop.request.tls?.serverName, `HOP${number}-NAME`);
        } else if (hop.kind === "tls") this.#label(hop.options.serverName, `HOP${number}-NAME`);
      }
    }
    for (const [index, { server }] of ways.entries()) {
      this.#label(hostOf(server), index === 0 ? "SERVER" : `SERVER${index + 1}`);
    }
    this.#label(masque && /^https?:\/\/([^/:@]+)/.exec(masque)?.[1], "PROXY");
    for (const [index, { target }] of forwards.entries()) this.#label(hostOf(target), `TARGET${index + 1}`);
    const tested = { DNS: testDns, ECHO: testEcho, STUN: testStun };
    for (const [label, text] of Object.entries(tested)) this.#label(text && hostOf(text), label);
    this.#label(testClock && /^http:\/\/(?:[^/@]*@)?(\[[^\]]*\]|[^/:]+)/.exec(testClock)?.[1], "CLOCK");
    this.#label(testName === "example.com" ? undefined : testName, "NAME");
    this.#secrets = secrets.filter(
      (text) => text !== undefined && text.length >= SHORTEST_SECRET,
    ) as string[];
  }

  #label(text: string | undefined, label: string): void {
    if (text === undefined || text === "localhost" || isKept(text) || this.#labels.has(text)) return;
    this.#labels.set(text, label);
  }

  /** Removes secrets from a text, and addresses unless they are shown. */
  clean(text: string): string {
    let clean = text;
    for (const secret of this.#secrets) clean = clean.replaceAll(secret, "***");
    if (!this.#hidesAddresses) return clean;
    const labels = [...this.#labels].sort(([one], [other]) => other.length - one.length);
    for (const [host, label] of labels) clean = clean.replaceAll(wordOf(host), label);
    return replaceIps(clean, (ip) => this.#numbered(ip));
  }

  /** The same for every text in a value of JSON. */
  cleanValue<Value>(value: Value): Value {
    if (typeof value === "string") return this.clean(value) as Value;
    if (Array.isArray(value)) return value.map((one) => this.cleanValue(one)) as Value;
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [name, this.cleanValue(inner)]),
    ) as Value;
  }

  #numbered(ip: string): string {
    const known = this.#labels.get(ip);
    if (known !== undefined) return known;
    const count = [...this.#labels.values()].filter((label) => label.startsWith("IP")).length;
    const label = `IP${count + 1}`;
    this.#labels.set(ip, label);
    return label;
  }
}

/** Removes IPs from a text when no names are known yet. */
export function redactText(text: string): string {
  return replaceIps(text, () => "IP");
}

function replaceIps(text: string, label: (ip: string) => string): string {
  const hide = (ip: string) =>
    isKept(ip) || makeAddress(ip.replace(/%.*/, ""), 0) === undefined ? ip : label(ip);
  return text.replace(IPV6, hide).replace(IPV4, hide);
}

function hostOf(server: string): string | undefined {
  return /^(?:\[([^\]]+)\]|([^[\]]+)):\d+$/
    .exec(server)
    ?.slice(1)
    .find((part) => part !== undefined);
}

/** True for addresses that reveal nothing about anyone: loopback and unspecified. */
function isKept(text: string): boolean {
  const address = makeAddress(text, 0);
  return address !== undefined && (isLoopback(address) || /^[0:.]+$/.test(text)) && /[.:]/.test(text);
}

/** Matches a host unless it is a part of another name. */
function wordOf(host: string): RegExp {
  const escaped = host.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(?<![\\w.:-])${escaped}(?![\\w-]|\\.\\w)`, "g");
}
