import { grown } from "../grown.ts";

/** The server's value, if the last DSCP capsule may have been lost or forgotten. */
const UNKNOWN = 255;
/** A DSCP is kept at least this long, so that an application that alternates between two costs few capsules. */
const HOLD_MS = 250;

/**
 * The DSCPs (RFC 2474) of a client's associations. Each association has the DSCP of its application's last datagrams. Most clients never
 * see one other than 0, so the tables grow only when an association has one.
 */
export class ClientDscp {
  #current = new Uint8Array(0);
  /** When it may change again. */
  #freeAt = new Float64Array(0);
  /** The server's value. */
  #told = new Uint8Array(0);
  /** 1 if the server has been sent a value other than 0. */
  #hasTold = new Uint8Array(0);

  handleOpened(association: number): void {
    if (association >= this.#current.length) return;
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
    if (association >= this.#current.length) return;
    if (isNew) this.#hasTold[association] = 0;
    this.#told[association] = this.#hasTold[association] === 1 ? UNKNOWN : 0;
  }

  of(association: number): number {
    return association < this.#current.length ? this.#current[association] : 0;
  }

  /** The application sends a datagram with a DSCP. @returns true if the association's DSCP has changed */
  handleSent(now: number, association: number, dscp: number): boolean {
    if (this.of(association) === dscp) return false;
    if (association >= this.#current.length) this.#grow(association);
    if (now < this.#freeAt[association]) return false;
    this.#current[association] = dscp;
    this.#freeAt[association] = now + HOLD_MS;
    return true;
  }

  /** Whether the server knows the DSCP of an association. */
  isKnown(association: number): boolean {
    return association >= this.#current.length || this.#told[association] === this.#current[association];
  }

  /** @returns true if the server has a different value and must get this one, which then counts as sent */
  takeTold(association: number): boolean {
    if (association >= this.#current.length) return false;
    const before = this.#told[association];
    const dscp = this.#current[association];
    this.#told[association] = dscp;
    if (dscp !== 0) this.#hasTold[association] = 1;
    return before !== dscp;
  }

  #grow(association: number): void {
    const size = Math.max(64, 2 * association);
    this.#current = grown(this.#current, new Uint8Array(size));
    this.#freeAt = grown(this.#freeAt, new Float64Array(size));
    this.#told = grown(this.#told, new Uint8Array(size));
    this.#hasTold = grown(this.#hasTold, new Uint8Array(size));
  }
}
