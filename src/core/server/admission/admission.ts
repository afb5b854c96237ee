import type { ExtensionChallenge, ExtensionRequest } from "../../../wire/http/upgrade.ts";
import { encodeChallengeResponse, encodeRefusal, encodeUpgradeResponse } from "../../../wire/http/upgrade.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import {
  constantTimeEqual,
  deriveSessionKey,
  NONCE_BYTES,
  responseMac,
  resumeMac,
  SESSION_ID_BYTES,
} from "../../handshakes/credentials.ts";
import type { KeyTable } from "../../keys/key-table.ts";
import { MAX_LANES } from "../../lanes/lane-bits.ts";
import type { ServerConnections } from "../server-connections.ts";
import type { ServerFlows } from "../server-flows.ts";
import type { ServerLanes } from "../server-lanes.ts";
import type { ServerParts } from "../server-parts.ts";
import type { Connection } from "../sessions/server-session.ts";
import type { SessionLifetimes } from "../sessions/session-lifetimes.ts";
import type { ProvenKey, Verdict } from "./handshake.ts";
import { Handshake } from "./handshake.ts";
import type { PlainVerdict } from "./plain-requests.ts";
import { judgePlainRequest, judgeResolvedTarget } from "./plain-requests.ts";

const NONE = -1;
/** Share of the tunnels up to which sessions may add lanes beyond their first. */
const SPARE_SHARE = 3 / 4;
/** Most challenges on one connection, over which a proxy may send the requests of several clients. */
const MAX_CHALLENGES = 32;

/**
 * Carries out the verdicts on requests: refuses a connection, gives it to the host, or makes it a lane of a session or the tunnel of a
 * client without our extension.
 */
export class Admission {
  readonly #parts: ServerParts;
  readonly #handshake: Handshake;
  readonly #connections: ServerConnections;
  readonly #lifetimes: SessionLifetimes;
  readonly #lanes: ServerLanes;
  readonly #flows: ServerFlows;

  constructor(
    parts: ServerParts,
    keys: KeyTable | undefined,
    connections: ServerConnections,
    lifetimes: SessionLifetimes,
    lanes: ServerLanes,
    flows: ServerFlows,
  ) {
    this.#parts = parts;
    this.#handshake = new Handshake(parts.options, keys);
    this.#connections = connections;
    this.#lifetimes = lifetimes;
    this.#lanes = lanes;
    this.#flows = flows;
  }

  /** Handles a request whose head is complete. @param surplus  bytes after the head; borrowed */
  handleRequest(now: number, connection: Connection, surplus: Uint8Array): void {
    this.#follow(now, connection, this.#handshake.judge(now, connection.head, connection.isNested), surplus);
  }

  /** See `TunnelServer.handleHandedOver`. */
  handleHandedOver(now: number, connection: Connection, head: Uint8Array, holder: string | undefined): void {
    const verdict = this.#handshake.judgeHandedOver(head, holder);
    this.#follow(now, connection, verdict, new Uint8Array(0));
  }

  #follow(now: number, connection: Connection, verdict: Verdict, surplus: Uint8Array): void {
    const { options, counters, shutdown } = this.#parts;
    switch (verdict.kind) {
      case "refuse": {
        const { reason, detail } = verdict;
        // Only clients with valid credentials can reach the limit of nonces.
        const isStranger = reason !== "nonce_limit" && verdict.isProven !== true;
        if (!options.hasDecoy || connection.isNested || !isStranger) {
          this.#connections.refuse(now, connection, reason, verdict.response, detail);
          return;
        }
        counters.refused[reason]++;
        const what = { kind: "stranger", refusal: { reason, detail } } as const;
        this.#connections.giveAway(now, connection, surplus, what);
        return;
      }
      case "web-socket":
      case "http2":
        this.#connections.giveAway(now, connection, surplus, verdict);
        return;
      case "challenge":
        this.#challenge(now, connection, verdict.challenge);
        return;
      case "hand-over":
        if (shutdown.isDraining) {
          this.#connections.refuse(now, connection, "draining", encodeRefusal(503, undefined));
          return;
        }
        this.#connections.giveAway(now, connection, surplus, { ...verdict, holder: verdict.holder?.name });
        return;
      case "lane":
        this.#acceptLane(now, connection, verdict.extension, verdict.proven);
        return;
      case "plain":
        connection.request = verdict.request;
        this.#followPlain(now, connection, judgePlainRequest(verdict.request, options));
    }
  }

  /** Asks a client to try again, on the same connection unless that has seen many challenges, as when a recording is repeated. */
  #challenge(now: number, connection: Connection, challenge: ExtensionChallenge): void {
    connection.challenges++;
    const isLast = connection.challenges === MAX_CHALLENGES;
    const response = encodeChallengeResponse(challenge, isLast);
    if (isLast) {
      this.#connections.refuse(now, connection, "challenged", response);
      return;
    }
    connection.head.clear();
    this.#parts.counters.refused.challenged++;
    this.#connections.send(connection, response);
  }

  #acceptLane(
    now: number,
    connection: Connection,
    extension: ExtensionRequest,
    proven: ProvenKey | undefined,
  ): void {
    const { options, shutdown, sessions } = this.#parts;
    if (shutdown.isSuspending) {
      // A client that gets no answer asks again, and then reaches the next process.
      this.#connections.refuse(now, connection, "draining", undefined);
      return;
    }
    if (shutdown.isDraining) {
      this.#connections.refuse(now, connection, "draining", encodeRefusal(503, undefined));
      return;
    }
    const { crypto } = options;
    const psk = proven?.key;
    const holder = proven?.holder;
    const nonce = crypto.random(NONCE_BYTES);
    const receipts = extension.receipts && options.hasReceipts !== false;
    if (receipts && extension.lane >= MAX_LANES) {
      this.#connections.refuse(
        now,
        connection,
        "protocol_error",
        encodeRefusal(400, undefined),
        "lane over 31",
      );
      return;
    }
    const known = extension.session === undefined ? undefined : sessions.find(extension.session);
    const isResumed =
      known !== undefined &&
      (known.lanes !== undefined) === receipts &&
      known.holder === holder &&
      constantTimeEqual(extension.resumeMac, resumeMac(crypto, known.key, extension));
    let session = isResumed ? known : undefined;
    // A connection with the same lane number: the client has given it up, but its end has not arrived here.
    const predecessor = [...(session?.connections ?? [])].find(({ lane }) => lane === extension.lane);
    const isSpare = session !== undefined && session.connections.size > 0;
    if (predecessor === undefined && !this.#makeRoomForTunnel(now, isSpare)) {
      this.#connections.refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    if (session === undefined) {
      if (!this.#lifetimes.makeRoom(now)) {
        this.#connections.refuse(now, connection, "session_limit", encodeRefusal(503, undefined));
        return;
      }
      const id = this.#handshake.newSessionId();
      const key = deriveSessionKey(crypto, psk ?? new Uint8Array(0), extension.nonce, nonce, id);
      session = this.#lifetimes.begin("native", id, key, receipts, holder);
    }
    const answer = { nonce, session: session.id, resumed: isResumed, receipts };
    const mac = psk === undefined ? undefined : responseMac(crypto, psk, extension.mac!, answer);
    connection.tunnel.writeControl(encodeUpgradeResponse(true, [], { ...answer, mac }));
    const isReturn = session.connections.size === 0 && isResumed;
    connection.lane = extension.lane;
    // Without receipts the lane number may be larger than there are labels in the metrics.
    connection.tunnel.queue.lane = Math.min(extension.lane, MAX_LANES - 1);
    this.#lifetimes.join(now, session, connection, predecessor, isReturn);
    const firstCount = (extension.nonce[0] << 8) | extension.nonce[1];
    const port = this.#lanes.handleLaneUp(now, session, connection, firstCount);
    this.#connections.open(now, connection, port === undefined ? "extension" : "receipts", port);
    this.#lanes.registerLost(session);
    this.#lifetimes.moveIfMisplaced(session);
  }

  /** Makes room for a new tunnel by closing the oldest whose clients have ended their side. @returns false if there is none */
  #makeRoomForTunnel(now: number, isSpare = false): boolean {
    const { options, sessions, associations } = this.#parts;
    const connections = this.#connections;
    // Additional lanes leave room for the first lanes of other sessions.
    const maxTunnels = (isSpare ? SPARE_SHARE : 1) * options.maxTunnels;
    const isFull = () =>
      connections.tunnelCount >= maxTunnels ||
      sessions.size >= options.maxSessions ||
      associations.count >= options.maxAssociations;
    for (const connection of connections.halfClosed) {
      if (!isFull()) break;
      connections.close(now, connection);
    }
    return connections.tunnelCount < maxTunnels;
  }

  // RFC 9298 without our extension

  /** Handles the answer for a target's name. @param addresses  in order of preference; empty if there are none */
  handleTargetResolved(now: number, connection: Connection, addresses: readonly AddressBytes[]): void {
    if (connection.state !== "resolving") return;
    const { bind } = connection.request!;
    this.#followPlain(now, connection, judgeResolvedTarget(addresses, bind, this.#parts.options));
  }

  #followPlain(now: number, connection: Connection, verdict: PlainVerdict): void {
    if (verdict.kind === "accept") this.#bindPlain(now, connection, verdict.target, verdict.bind);
    else if (verdict.kind === "refuse") {
      this.#connections.refuse(now, connection, verdict.reason, verdict.response);
    } else {
      connection.state = "resolving";
      this.#parts.names.addTarget(connection, verdict.name);
    }
  }

  /** Begins a session with one association, which ends with the tunnel. */
  #bindPlain(now: number, connection: Connection, target: AddressBytes | undefined, bind: boolean): void {
    const { options, shutdown, associations, outputs } = this.#parts;
    if (shutdown.isDraining) {
      this.#connections.refuse(now, connection, "draining", encodeRefusal(503, undefined));
      return;
    }
    if (!this.#makeRoomForTunnel(now) || !this.#lifetimes.makeRoom(now)) {
      this.#connections.refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const id = options.crypto.random(SESSION_ID_BYTES);
    const kind = bind ? "bound" : "fixed";
    const session = this.#lifetimes.begin(kind, id, new Uint8Array(0), false, undefined);
    connection.session = session;
    session.connections.add(connection);
    const association = this.#flows.openAssociation(now, session, connection, 0, undefined);
    if (association === NONE) {
      this.#connections.refuse(now, connection, "association_limit", encodeRefusal(503, undefined));
      return;
    }
    if (target !== undefined) associations.addClientContext(now, session, association, 0, target, true);
    connection.state = "binding";
    outputs.push({
      kind: "bind",
      association,
      connection: connection.index,
      target: bind ? undefined : target,
    });
  }

  /** See `TunnelServer.handleBound`. */
  handleBound(now: number, association: number, publicAddresses: readonly string[] | undefined): void {
    const connection = this.#parts.associations.connectionOf[association];
    if (connection === undefined || connection.state !== "binding") return;
    if (publicAddresses === undefined) {
      const response = encodeRefusal(502, "proxy_internal_error");
      this.#connections.refuse(now, connection, "association_limit", response);
      return;
    }
    const bind = connection.session!.bound !== undefined;
    connection.tunnel.writeControl(encodeUpgradeResponse(bind, bind ? publicAddresses : [], undefined));
    this.#connections.open(now, connection, bind ? "bind" : "datagram");
  }
}
