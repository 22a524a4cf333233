import { Backoff } from "./backoff.js";
import type { Connection, ConnectionEvents } from "./connection.js";
import type { Address, Directory } from "./directory.js";
import { CommandError } from "./errors/command-error.js";
import { WireError } from "./errors/wire-error.js";
import { Race } from "./race.js";
import { betterThan, planRace } from "./race-plan.js";
import { watchSignals } from "./signals.js";
import type * as wire from "./wire.js";
import type { WireMemory } from "./wire-memory.js";
import type { Lane, WireEnd, WireKind } from "./wires/wire.js";

/** Milliseconds on a worse wire before a better one gets another try, if it did not fail. */
const UPGRADE_DELAY = 5_000;

/** A connection that lived this long (milliseconds) was no failure: the back-off begins anew. */
const STABLE = 5_000;

/** 4004: another connection took the session over. */
const REPLACED = 4004;

export type ClientState = "connecting" | "connected" | "disconnected" | "closed";

/** Which wires may be used: one alone, or the best there is. */
export type WireChoice = WireKind | "auto";

/** What to do about a `connect` that was refused. */
export type Verdict = "again" | "later" | "never";

/** Who is connected. */
export interface ConnectorHost {
  /** Gets what `hello` needs and does not have: a token. */
  prepare(): Promise<void>;
  /** The hand-shake's frame. */
  hello(): wire.Connect;
  /** `connect` was refused; what it was refused for may be changed now. */
  refused(error: wire.Error | CommandError | WireEnd): Verdict;
  dial(address: Address, events: ConnectionEvents): Connection;
  /** Whether this page or process can have such a wire at all. */
  has(kind: WireKind): boolean;
  /** This connection is the one in use; the one before it is gone. */
  adopted(connection: Connection, connected: wire.Connected, hello: wire.Connect): void;
  /** There is no connection any more. */
  lost(): void;
  frame(frame: wire.ServerFrame, lane: Lane): void;
  rtt(milliseconds: number): void;
  state(state: ClientState): void;
  /** Something failed that will be tried again. */
  trouble(error: Error): void;
  /** The server allows no return. */
  ended(code: number, reason: string): void;
}

/** Keeps one connection live: races the wires, returns after a loss, and goes to a better wire beside the old one. */
export class Connector {
  private current: Connection | undefined;
  private since = 0;
  private race: Race | undefined;
  /** Raised by whatever makes attempts under way obsolete. */
  private round = 0;
  private attempting = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private choice: WireChoice = "auto";
  private chosen: { resolve(): void; reject(error: Error): void } | undefined;
  private stale = false;
  private drainingUntil = 0;
  /** When to leave the node that drains. */
  private leaveAt = 0;
  private readonly unwatch: () => void;

  constructor(
    private readonly host: ConnectorHost,
    private readonly directory: Directory,
    private readonly memory: WireMemory,
    private readonly backoff: Backoff,
  ) {
    this.unwatch = watchSignals({
      awake: () => this.awake(),
      moved: () => this.memory.load(),
    });
  }

  get connection(): Connection | undefined {
    return this.current;
  }

  start(): void {
    void this.attempt();
  }

  /** Resolves once the wire in use is of this kind; rejects when the first try fails, and goes on trying. */
  use(choice: WireChoice): Promise<void> {
    this.choice = choice;
    this.chosen?.reject(new WireError("another wire was chosen meanwhile"));
    this.chosen = undefined;
    this.backoff.reset();
    const done = choice === "auto" ? this.current !== undefined : this.current?.kind === choice;
    const promise = done
      ? Promise.resolve()
      : new Promise<void>((resolve, reject) => (this.chosen = { resolve, reject }));
    if (choice === "auto" || !done) this.restart();
    else this.cancel();
    return promise;
  }

  /** The node leaves: be live elsewhere, then let go of it. */
  drain({ reconnect_in, close_in }: wire.Draining): void {
    this.drainingUntil = Date.now() + close_in;
    this.leaveAt = Date.now() + reconnect_in;
    this.stale = true;
    clearTimeout(this.timer);
    // What is under way leads back to this node, most likely.
    this.timer = setTimeout(() => this.race?.greeting || this.restart(), reconnect_in);
  }

  close(code: number, reason: string): void {
    this.cancel();
    this.unwatch();
    this.chosen?.reject(new WireError("the client is closed"));
    this.current?.close(code, reason);
    this.current = undefined;
  }

  private get draining(): boolean {
    return this.current !== undefined && this.drainingUntil > Date.now();
  }

  private awake(): void {
    if (this.current) this.current.probe();
    else if (!this.attempting) this.restart();
  }

  private restart(): void {
    this.cancel();
    void this.attempt();
  }

  private cancel(): void {
    this.round++;
    this.attempting = false;
    clearTimeout(this.timer);
    this.race?.stop();
    this.race = undefined;
  }

  private later(delay: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.attempt(), delay);
  }

  /** One round: beside the connection in use if there is one. */
  private async attempt(): Promise<void> {
    if (this.attempting) return;
    this.attempting = true;
    const round = ++this.round;
    if (!this.current) this.host.state("connecting");
    try {
      await this.host.prepare();
      const addresses = await this.directory.addresses(this.stale || this.current !== undefined);
      if (round !== this.round) return;
      this.stale = false;
      this.run(addresses);
    } catch (error) {
      if (round !== this.round) return;
      if (error instanceof CommandError) return this.refused(error);
      this.host.trouble(error instanceof Error ? error : new WireError(String(error)));
      this.fallBack();
    }
  }

  private run(all: readonly Address[]): void {
    let addresses = all.filter(({ kind }) => this.host.has(kind) && (this.choice === "auto" || this.choice === kind));
    if (addresses.length === 0) throw new WireError(`there is no ${this.choice === "auto" ? "wire" : this.choice} here`);
    const beside = this.current && !this.draining ? this.current.kind : undefined;
    if (beside) {
      addresses =
        this.choice === "auto"
          ? betterThan(beside, addresses).filter(({ kind }) => !this.memory.resting(kind))
          : addresses.filter(({ kind }) => kind !== beside);
      if (addresses.length === 0) return this.settle(all);
    }
    const plan = this.choice === "auto" ? planRace(addresses, this.memory) : addresses.map((address) => ({ address, delay: 0 }));
    const failed = new Map<WireKind, string>();
    let won = false;
    this.race = new Race(plan, addresses, {
      dial: (address, events) => this.host.dial(address, events),
      hello: () => this.host.hello(),
      won: (connection, connected, hello) => {
        won = true;
        this.adopt(connection, connected, hello);
        // A wire is to blame for its failure only where another one works.
        for (const kind of failed.keys()) this.memory.failed(kind);
        failed.clear();
        this.memory.won(connection.kind);
      },
      failed: (kind, reason) => {
        if (won || (beside && this.choice === "auto")) this.memory.failed(kind);
        else failed.set(kind, reason);
      },
      refused: (error) => this.refused(error),
      over: () => {
        this.race = undefined;
        if (this.current && (won || (beside && this.choice === "auto"))) return this.settle(all);
        this.stale = true;
        this.directory.avoid = this.directory.named;
        const reasons = [...failed].map(([kind, reason]) => `${kind}: ${reason}`).join("; ");
        this.host.trouble(new WireError(`no wire could be had (${reasons})`));
        this.fallBack();
      },
    });
  }

  private adopt(connection: Connection, connected: wire.Connected, hello: wire.Connect): void {
    const before = this.current;
    this.current = connection;
    this.since = Date.now();
    this.drainingUntil = 0;
    connection.events = {
      opened: () => {},
      connected: () => {},
      refused: () => {},
      frame: (frame, lane) => this.current === connection && this.host.frame(frame, lane),
      rtt: (milliseconds) => this.current === connection && this.host.rtt(milliseconds),
      closed: (end) => this.current === connection && this.lost(end),
    };
    before?.close(4000, "the session goes on over another wire");
    this.host.adopted(connection, connected, hello);
    this.chosen?.resolve();
    this.chosen = undefined;
  }

  /** The race is over and a connection in use: when does a better wire get its next try? */
  private settle(all: readonly Address[]): void {
    this.attempting = false;
    if (this.draining) return this.later(this.leaveAt - Date.now());
    if (!this.current || this.choice !== "auto") return;
    const better = betterThan(this.current.kind, all).filter(({ kind }) => this.host.has(kind));
    if (better.length === 0) return;
    const now = Date.now();
    const at = Math.min(...better.map(({ kind }) => this.memory.restsUntil(kind)));
    this.later(Math.max(UPGRADE_DELAY, at - now));
  }

  private lost(end: WireEnd): void {
    this.current = undefined;
    // Its node may be gone.
    this.stale = true;
    this.host.lost();
    if (end.code !== undefined && end.code >= 4500) return this.refused(end);
    if (Date.now() - this.since >= STABLE) this.backoff.reset();
    if (this.race?.greeting) {
      // The session is just moving: its new connection answers, or the race tells that there is none.
      this.host.state("connecting");
      return;
    }
    this.cancel();
    if (end.code === REPLACED) this.host.refused(end);
    this.host.trouble(new WireError(`the connection was lost: ${end.reason}`));
    this.fallBack();
  }

  private refused(error: wire.Error | CommandError | WireEnd): void {
    this.cancel();
    const verdict = this.host.refused(error);
    const message = "message" in error ? error.message : error.reason;
    if (verdict === "never") {
      const code = typeof error.code === "number" ? error.code : 4502;
      return this.host.ended(code, message);
    }
    this.host.trouble(new WireError(`the server refused the connection: ${message}`));
    if (verdict === "again" && this.backoff.attempts < 2) {
      this.backoff.next();
      void this.attempt();
    } else this.fallBack();
  }

  /** The next round comes after the back-off; with a connection in use, nobody notices. */
  private fallBack(): void {
    this.attempting = false;
    if (!this.current) this.host.state("disconnected");
    this.chosen?.reject(new WireError("the chosen wire could not be had"));
    this.chosen = undefined;
    this.later(this.backoff.next());
  }
}
