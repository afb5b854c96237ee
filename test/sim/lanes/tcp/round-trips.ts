/** Round-trip times as RFC 6298 averages them, in milliseconds. */
export class RoundTrips {
  /** 0 before the first. */
  smoothed = 0;
  variation = 0;
  min = Number.POSITIVE_INFINITY;

  add(rtt: number): void {
    this.min = Math.min(this.min, rtt);
    if (this.smoothed === 0) {
      this.smoothed = rtt;
      this.variation = rtt / 2;
    } else {
      this.variation += (Math.abs(rtt - this.smoothed) - this.variation) / 4;
      this.smoothed += (rtt - this.smoothed) / 8;
    }
  }
}
