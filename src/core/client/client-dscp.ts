import { grown } from "../grown.ts";

/** The server's value, if the last DSCP capsule may have been lost or forgotten. */
const UNKNOWN = 255;
/** A DSCP is kept at least this long, so that an application that alternates between two costs few capsules. */
const HOLD_MS = 250;

/** The DSCPs (RFC 2474) of a client's associations. Each association has the DSCP of its application's last datagrams. */
export class ClientDscp {
  #current = new Uint8Array(64);
  /** When it may change again. */
  #freeAt = new Float64Array(64);
  /** The server's value. */
  #told = new Uint8Array(64);
  /** 1 if the server has been sent a value other than 0. */
  #hasTold = new Uint8Array(64);

  handleOpened(association: number): void {
    if (association >= this.#current.length) {
      const size = 2 * association;
      this.#current = grown(this.#current, new Uint8Array(size));
      this.#freeAt = grown(this.#freeAt, new Float64Array(size));
      this.#told = grown(this.#told, new Uint8Array(size));
      this.#hasTold = grown(this.#hasTold, new Uint8Array(size));
    }
    this.#current[association] = 0;
    this.#freeAt[association] = Number.NEGATIVE_INFINITY;
    this.#told[association] = 0;
    this.#hasTold[association] = 0;
  }

  /**
   * An ASSOCIATION_OPEN was written, or a DSCP may have been lost.
   *
   * @param isNew  false if the server may already know the association and a DSCP of it
   */
  handleRegistered(association: number, isNew: boolean): void {
    if (isNew) this.#hasTold[association] = 0;
    this.#told[association] = this.#hasTold[association] === 1 ? UNKNOWN : 0;
  }

  of(association: number): number {
    return this.#current[association];
  }

  /** The application sends a datagram with a DSCP. @returns true if the association's DSCP has changed */
  handleSent(now: number, association: number, dscp: number): boolean {
    if (this.#current[association] === dscp || now < this.#freeAt[association]) return false;
    this.#current[association] = dscp;
    this.#freeAt[association] = now + HOLD_MS;
    return true;
  }

  /** Whether the server knows the DSCP of an association. */
  isKnown(association: number): boolean {
    return this.#told[association] === this.#current[association];
  }

  /** @returns true if the server has a different value and must get this one, which then counts as sent */
  takeTold(association: number): boolean {
    const before = this.#told[association];
    const dscp = this.#current[association];
    this.#told[association] = dscp;
    if (dscp !== 0) this.#hasTold[association] = 1;
    return before !== dscp;
  }
}
