import { defer } from "./defer.js";
import type { Address } from "./directory.js";
import type { Connection, ConnectionEvents } from "./connection.js";
import type { Runner } from "./race-plan.js";
import type * as wire from "./wire.js";
import type { WireEnd, WireKind } from "./wires/wire.js";

/** Milliseconds until a wire that neither opens nor fails counts as failed: a firewall that says nothing. */
export const OPEN_DEADLINE = 5_000;

/** Milliseconds from an open wire to a live session. */
export const HANDSHAKE_DEADLINE = 5_000;

/** What a race tells. */
export interface RaceEvents {
  /** Begins one wire. */
  dial(address: Address, events: ConnectionEvents): Connection;
  /** The hand-shake's frame, for a wire that is open. */
  hello(): wire.Connect;
  /** A session is live over it; its events are the receiver's from here on. May come again, with a better wire. */
  won(connection: Connection, connected: wire.Connected, hello: wire.Connect): void;
  /** The server's word, which no other wire would change. The race is over. */
  refused(error: wire.Error | WireEnd): void;
  /** This wire failed. */
  failed(kind: WireKind, reason: string): void;
  /** Nobody runs any more. */
  over(): void;
}

interface Entry {
  readonly address: Address;
  /** Its place in the order of preference; 0 is the best. */
  readonly rank: number;
  state: "waiting" | "dialling" | "open" | "greeting" | "out";
  connection?: Connection;
  timer?: ReturnType<typeof setTimeout>;
}

/**
 * Tries wires side by side, the later ones with a delay (RFC 8305). The first that is open greets; one at a time,
 * since a session lives on one connection. After a victory only better wires run on: the user is live over
 * WebSocket while a slow WebTransport still gets its chance.
 */
export class Race {
  private readonly entries: Entry[];
  private best = Infinity;
  private stopped = false;

  /** `preference`: the addresses best first, which need not be the order in which they start. */
  constructor(
    plan: readonly Runner[],
    preference: readonly Address[],
    private readonly events: RaceEvents,
  ) {
    this.entries = plan.map(({ address }) => ({ address, rank: preference.indexOf(address), state: "waiting" }));
    plan.forEach(({ delay }, index) => {
      const entry = this.entries[index]!;
      if (delay > 0 && delay < Infinity) entry.timer = setTimeout(() => this.dial(entry), delay);
    });
    // Our owner has us in hand before the first event comes.
    defer(() => this.entries[0] && this.dial(this.entries[0]));
  }

  /** Whether a hand-shake is under way: to stop now could lose the session's other connection as well. */
  get greeting(): boolean {
    return this.entries.some(({ state }) => state === "greeting");
  }

  stop(): void {
    this.stopped = true;
    for (const entry of this.entries) this.out(entry);
  }

  private dial(entry: Entry): void {
    if (this.stopped || entry.state !== "waiting") return;
    clearTimeout(entry.timer);
    entry.state = "dialling";
    entry.timer = setTimeout(() => this.fail(entry, "it did not open in time"), OPEN_DEADLINE);
    try {
      entry.connection = this.events.dial(entry.address, {
        opened: () => this.opened(entry),
        connected: () => {},
        refused: () => {},
        frame: () => {},
        rtt: () => {},
        closed: (end) => this.closed(entry, end),
      });
    } catch (error) {
      this.fail(entry, String(error));
    }
  }

  private opened(entry: Entry): void {
    if (entry.state !== "dialling") return;
    entry.state = "open";
    clearTimeout(entry.timer);
    this.greet();
  }

  /** The best of those that are open says hello, unless another is just doing so. */
  private greet(): void {
    if (this.stopped || this.greeting) return;
    const open = this.entries.filter(({ state }) => state === "open").sort((a, b) => a.rank - b.rank);
    const entry = open[0];
    if (!entry?.connection) return this.carryOn();
    const connection = entry.connection;
    const hello = this.events.hello();
    entry.state = "greeting";
    entry.timer = setTimeout(() => this.fail(entry, "the hand-shake took too long"), HANDSHAKE_DEADLINE);
    connection.events = {
      ...connection.events,
      connected: (connected) => {
        this.won(entry);
        this.events.won(connection, connected, hello);
        this.greet();
      },
      refused: (error) => {
        this.stop();
        this.events.refused(error);
      },
    };
    connection.greet(hello);
  }

  private won(entry: Entry): void {
    clearTimeout(entry.timer);
    entry.state = "out";
    // It is its receiver's now, and not ours to close.
    delete entry.connection;
    this.best = entry.rank;
    for (const other of this.entries) if (other.rank > this.best) this.out(other);
  }

  private closed(entry: Entry, end: WireEnd): void {
    if (entry.state === "out") return;
    if (end.code !== undefined && end.code >= 4500) {
      this.stop();
      this.events.refused(end);
    } else this.fail(entry, end.reason);
  }

  private fail(entry: Entry, reason: string): void {
    if (entry.state === "out") return;
    this.out(entry);
    this.events.failed(entry.address.kind, reason);
    this.greet();
  }

  /** With nobody running, the next starts at once; with nobody left, the race is over. */
  private carryOn(): void {
    if (this.stopped || this.entries.some(({ state }) => state === "dialling" || state === "greeting")) return;
    const next = this.entries.find(({ state }) => state === "waiting");
    if (next) return this.dial(next);
    this.stopped = true;
    this.events.over();
  }

  private out(entry: Entry): void {
    clearTimeout(entry.timer);
    entry.state = "out";
    entry.connection?.close(4000, "another wire won");
  }
}
