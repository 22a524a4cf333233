import { Backoff } from "./backoff.js";
import { CommandError } from "./errors/command-error.js";
import { QueueFullError } from "./errors/queue-full-error.js";
import type * as wire from "./wire.js";

/** How often a server may refuse one message for now before its promise is rejected. */
const ATTEMPTS = 20;

interface Entry {
  readonly frame: wire.Publish;
  sent: boolean;
  refusals: number;
  resolve(cursor: wire.Cursor): void;
  reject(error: unknown): void;
}

/** Writes a frame to the wire in use. Throws what is wrong with the frame itself. */
type Transmit = (frame: wire.ClientFrame) => void;

/**
 * Publishes until they are acknowledged, in order. Whatever a lost wire left open goes again under the same
 * message id, so that it stands once in the log.
 */
export class SendQueue {
  private readonly entries = new Map<number, Entry>();
  private readonly backoff: Backoff;
  private transmit: Transmit | undefined;
  private window = 0;
  private inFlight = 0;
  private pause: ReturnType<typeof setTimeout> | undefined;
  /** Nothing goes out until `again`. */
  private held = false;

  constructor(
    /** Messages that may wait for their acknowledgement, sent or not; one more is refused. */
    private readonly capacity: number,
    random?: () => number,
  ) {
    this.backoff = new Backoff(200, 10_000, random);
  }

  /** Messages that are not acknowledged yet. */
  get size(): number {
    return this.entries.size;
  }

  push(frame: wire.Publish): Promise<wire.Cursor> {
    if (this.entries.size >= this.capacity) {
      return Promise.reject(new QueueFullError("messages to publish", this.capacity));
    }
    return new Promise((resolve, reject) => {
      this.entries.set(frame.id, { frame, sent: false, refusals: 0, resolve, reject });
      this.pump();
    });
  }

  /** A wire is live: everything that is open goes out again. `window`: publishes that may be in flight. */
  attach(transmit: Transmit, window: number): void {
    this.transmit = transmit;
    this.window = Math.max(1, window);
    this.again();
  }

  detach(): void {
    this.transmit = undefined;
  }

  /** The server has it. False: the id is none of ours. */
  published(answer: wire.Published): boolean {
    const entry = this.take(answer.id);
    if (!entry) return false;
    this.backoff.reset();
    entry.resolve(answer.cursor);
    this.pump();
    return true;
  }

  /** The server refused it. `hold`: it will take it once something else is done (a new token), and then `again`. */
  refused(error: wire.Error, hold: boolean): boolean {
    const entry = this.entries.get(error.id ?? 0);
    if (!entry) return false;
    if (hold || (error.retry && ++entry.refusals < ATTEMPTS)) {
      if (entry.sent) this.inFlight--;
      entry.sent = false;
      // All wait: what was published later must not overtake it.
      if (hold) this.held = true;
      else this.wait(Math.max(error.retry_after ?? 0, this.backoff.next()));
    } else {
      this.take(entry.frame.id);
      entry.reject(new CommandError(error));
      this.pump();
    }
    return true;
  }

  /** Sends everything that is open again, in order. */
  again(): void {
    clearTimeout(this.pause);
    this.pause = undefined;
    this.held = false;
    this.inFlight = 0;
    for (const entry of this.entries.values()) entry.sent = false;
    this.pump();
  }

  close(error: Error): void {
    clearTimeout(this.pause);
    this.transmit = undefined;
    const entries = [...this.entries.values()];
    this.entries.clear();
    for (const entry of entries) entry.reject(error);
  }

  private wait(delay: number): void {
    this.pause ??= setTimeout(() => {
      this.pause = undefined;
      this.pump();
    }, delay);
  }

  private pump(): void {
    if (this.pause !== undefined || this.held) return;
    for (const entry of this.entries.values()) {
      if (!this.transmit || this.inFlight >= this.window) return;
      if (entry.sent) continue;
      try {
        entry.sent = true;
        this.inFlight++;
        this.transmit({ publish: entry.frame });
      } catch (error) {
        this.take(entry.frame.id);
        entry.reject(error);
      }
    }
  }

  private take(id: number): Entry | undefined {
    const entry = this.entries.get(id);
    if (entry?.sent) this.inFlight--;
    this.entries.delete(id);
    return entry;
  }
}
