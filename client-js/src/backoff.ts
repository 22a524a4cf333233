/** Exponential back-off with full jitter: a crowd that lost its server does not come back in step. */
export class Backoff {
  private failures = 0;

  constructor(
    private readonly base: number,
    private readonly cap: number,
    private readonly random: () => number = Math.random,
  ) {}

  /** Failures in a row. */
  get attempts(): number {
    return this.failures;
  }

  /** Milliseconds to wait now: anywhere between nothing and a ceiling that doubles with every failure. */
  next(): number {
    const ceiling = Math.min(this.cap, this.base * 2 ** Math.min(this.failures, 30));
    this.failures++;
    return Math.round(this.random() * ceiling);
  }

  reset(): void {
    this.failures = 0;
  }
}
