import { CommandError } from "./errors/command-error.js";
import { QueueFullError } from "./errors/queue-full-error.js";
import { WireError } from "./errors/wire-error.js";
import type * as wire from "./wire.js";

/** Questions that may wait for their answers at once. */
export const REQUEST_CAPACITY = 1024;

interface Entry {
  readonly frame: wire.ClientFrame;
  /** Asking twice does no harm: a lost wire's question goes again over the next. */
  readonly repeatable: boolean;
  sent: boolean;
  resolve(frame: wire.ServerFrame): void;
  reject(error: unknown): void;
}

/** Commands other than publishes, each until its answer. */
export class Requests {
  private readonly entries = new Map<number, Entry>();
  private transmit: ((frame: wire.ClientFrame) => void) | undefined;

  ask(id: number, frame: wire.ClientFrame, repeatable: boolean): Promise<wire.ServerFrame> {
    if (this.entries.size >= REQUEST_CAPACITY) {
      return Promise.reject(new QueueFullError("commands", REQUEST_CAPACITY));
    }
    return new Promise((resolve, reject) => {
      const entry = { frame, repeatable, sent: false, resolve, reject };
      this.entries.set(id, entry);
      this.write(id, entry);
    });
  }

  /** A wire is live: what is open goes out. */
  attach(transmit: (frame: wire.ClientFrame) => void): void {
    this.detach();
    this.transmit = transmit;
    for (const [id, entry] of this.entries) this.write(id, entry);
  }

  /** The wire is gone, and with it the answers to what was asked there. */
  detach(): void {
    this.transmit = undefined;
    for (const [id, entry] of this.entries) {
      if (!entry.sent) continue;
      entry.sent = false;
      if (entry.repeatable) continue;
      this.entries.delete(id);
      entry.reject(new WireError("the wire broke before the answer came; it may have been done"));
    }
  }

  answered(id: number, frame: wire.ServerFrame): boolean {
    const entry = this.entries.get(id);
    this.entries.delete(id);
    entry?.resolve(frame);
    return entry !== undefined;
  }

  refused(error: wire.Error): boolean {
    const id = error.id ?? 0;
    const entry = this.entries.get(id);
    this.entries.delete(id);
    entry?.reject(new CommandError(error));
    return entry !== undefined;
  }

  close(error: Error): void {
    this.transmit = undefined;
    const entries = [...this.entries.values()];
    this.entries.clear();
    for (const entry of entries) entry.reject(error);
  }

  private write(id: number, entry: Entry): void {
    if (!this.transmit) return;
    try {
      entry.sent = true;
      this.transmit(entry.frame);
    } catch (error) {
      this.entries.delete(id);
      entry.reject(error);
    }
  }
}
