import { describe, expect, it } from "vitest";
import { ServerAssociations, senderContexts } from "../../../../src/core/server/server-associations.ts";
import type { Connection } from "../../../../src/core/server/sessions/server-session.ts";
import { Session } from "../../../../src/core/server/sessions/server-session.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { seededCryptography } from "../../../sim/network.ts";

const TARGET = makeAddress("192.0.2.1", 53)!;
/** These tests use no part of a connection. */
const CONNECTION = {} as Connection;

function setUp(limits: {
  maxAssociations?: number;
  maxAssociationsPerSession?: number;
  maxContextsPerSession?: number;
}) {
  const associations = new ServerAssociations(
    {
      filtering: "address-dependent",
      permits: () => true,
      maxAssociations: 100,
      maxAssociationsPerSession: 100,
      maxContextsPerSession: 100,
      ...limits,
    },
    seededCryptography(1),
  );
  const sessions: Session[] = [];
  let now = 0;
  return {
    associations,
    sessions,
    session: () => {
      const session = new Session(
        sessions.length,
        sessions.length + 1,
        "native",
        new Uint8Array(16),
        new Uint8Array(32),
        undefined,
      );
      sessions.push(session);
      return session;
    },
    /** Opens an association, ten seconds after the previous one, that gets this many answers. */
    open: (session: Session, answers: number) => {
      now += 10_000;
      const id = session.associationById.size + 1;
      const slot = associations.open(now, session, CONNECTION, id, undefined);
      associations.addClientContext(now, session, slot, 2 * slot + 2, TARGET, true);
      for (let i = 0; i < answers; i++) associations.contextOfReply(now, slot, TARGET, 0, TARGET.length, 1);
      return slot;
    },
    victim: (session: Session) => associations.victimFor(session, sessions),
  };
}

describe("an association for which there is no room", () => {
  it("replaces the idlest of its session that got at most one answer", () => {
    const { session, open, victim } = setUp({ maxAssociationsPerSession: 4 });
    const own = session();
    open(own, 5);
    const quiet = open(own, 1);
    open(own, 0);
    expect(victim(own)).toBe(-1);
    open(own, 5);
    expect(victim(own)).toBe(quiet);
  });

  it("is refused when every association of its session got more than one answer", () => {
    const { session, open, victim } = setUp({ maxAssociationsPerSession: 2 });
    const own = session();
    open(own, 2);
    open(own, 3);
    expect(victim(own)).toBe("refused");
  });

  it("replaces one of the session with the most when all sessions together have too many", () => {
    const { session, open, victim } = setUp({ maxAssociations: 6 });
    const [rich, poor] = [session(), session()];
    const first = open(rich, 9);
    const quiet = open(rich, 0);
    for (let i = 0; i < 3; i++) open(rich, 9);
    open(poor, 0);
    expect(victim(poor)).toBe(quiet);
    expect(victim(rich)).toBe(quiet);
    const { associations } = setUp({});
    expect(associations.count).toBe(0);
    expect(first).not.toBe(quiet);
  });

  it("replaces even an active one of the session with the most, and never one of a session with fewer", () => {
    const { session, open, victim } = setUp({ maxAssociations: 6 });
    const [rich, poor] = [session(), session()];
    const idlest = open(rich, 9);
    for (let i = 0; i < 4; i++) open(rich, 9);
    open(poor, 0);
    expect(victim(poor)).toBe(idlest);
    expect(victim(rich)).toBe("refused");
  });
});

describe("an association that needs a socket when there are no more", () => {
  it("replaces the idlest that has one, of the session with most sockets, whatever other associations there are", () => {
    const { associations, sessions, session, open } = setUp({});
    const [rich, poor, bare] = [session(), session(), session()];
    for (let i = 0; i < 9; i++) open(bare, 0);
    open(rich, 0);
    const withSocket = Array.from({ length: 4 }, () => open(rich, 0));
    for (const slot of withSocket) associations.handleSocketOpened(slot);
    expect(associations.victimForSocket(open(poor, 0), sessions)).toBe(withSocket[0]);
    expect(associations.victimForSocket(open(rich, 0), sessions)).toBe(withSocket[0]);
    const answered = associations.contexts.first(withSocket[0]);
    associations.noteReplies(1_000_000, answered, 2);
    expect(associations.victimForSocket(open(poor, 0), sessions)).toBe(withSocket[1]);
  });

  it("is refused if its session has most sockets, all of answered associations, or would have as many as another", () => {
    const { associations, sessions, session, open } = setUp({});
    const [own, other] = [session(), session()];
    for (const one of [own, other, other]) associations.handleSocketOpened(open(one, 2));
    expect(associations.victimForSocket(open(own, 0), sessions)).toBe("refused");
  });

  it("does not replace one from another process without its socket, but protects one with it that was answered there", () => {
    const { associations, sessions, session, open } = setUp({});
    const own = session();
    const [lost, kept, later] = [open(own, 0), open(own, 0), open(own, 0)];
    for (const slot of [lost, kept]) associations.restoreAnswers(slot, 2);
    for (const slot of [kept, later]) associations.handleSocketOpened(slot);
    expect(associations.victimForSocket(open(own, 0), sessions)).toBe(later);
    expect(associations.victimForSocket(lost, sessions)).toBe(later);
  });
});

describe("a context for which there is no room", () => {
  const sender = (i: number) => makeAddress("198.51.100.1", 1_000 + i)!;

  it("replaces the idlest one that the server made for a sender", () => {
    const { associations, session, open } = setUp({ maxContextsPerSession: 10 });
    const own = session();
    const slot = open(own, 1);
    expect(associations.victimForClient(own)).toBe(-1);
    const senders = Array.from({ length: 5 }, (_, i) =>
      associations.addSenderContext(20_000 + i, own, slot, 1 + 2 * i, sender(i)),
    );
    for (let i = 0; i < 4; i++)
      associations.addClientContext(30_000, own, slot, 100 + 2 * i, sender(50 + i), true);
    expect(associations.victimForClient(own)).toBe(senders[0]);
  });

  it("replaces the client's own idlest if senders have at most a quarter", () => {
    const { associations, session, open } = setUp({ maxContextsPerSession: 8 });
    const own = session();
    const slot = open(own, 1);
    const first = associations.contexts.first(slot);
    for (let i = 0; i < 2; i++) associations.addSenderContext(11_000, own, slot, 1 + 2 * i, sender(i));
    for (let i = 0; i < 5; i++)
      associations.addClientContext(30_000, own, slot, 100 + 2 * i, sender(50 + i), true);
    expect(associations.victimForClient(own)).toBe(first);
    associations.releaseContext(associations.contexts.idle.oldest(senderContexts(own)));
    associations.addClientContext(30_000, own, slot, 120, sender(60), true);
    expect(associations.victimForSender(30_000, own, false)).toBe(first);
  });

  it("is refused to senders that hold half of all contexts until one of theirs has been idle for 10 s", () => {
    const { associations, session, open } = setUp({ maxContextsPerSession: 10 });
    const own = session();
    const slot = open(own, 1);
    const senders = Array.from({ length: 5 }, (_, i) =>
      associations.addSenderContext(20_000, own, slot, 1 + 2 * i, sender(i)),
    );
    expect(associations.victimForSender(25_000, own, false)).toBe("refused");
    expect(associations.victimForSender(31_000, own, false)).toBe(senders[0]);
  });

  it("is not refused to the address of a name that the client sent to", () => {
    const { associations, session, open } = setUp({ maxContextsPerSession: 10 });
    const own = session();
    const slot = open(own, 1);
    const senders = Array.from({ length: 5 }, (_, i) =>
      associations.addSenderContext(20_000, own, slot, 1 + 2 * i, sender(i)),
    );
    expect(associations.victimForSender(25_000, own, true)).toBe(senders[0]);
  });
});
