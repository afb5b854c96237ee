/** Share of the demand that is dropped, 0 to 1, averaged over about a second. */
const MEAN_MS = 1_000;

export class DropShare {
  value = 0;

  /** @param dropped  datagrams that became too old in the queue @param sent  datagrams sent, both in an interval of `length` ms */
  note(length: number, dropped: number, sent: number): void {
    const share = dropped + sent === 0 ? 0 : dropped / (dropped + sent);
    this.value += Math.min(1, length / MEAN_MS) * (share - this.value);
  }
}
