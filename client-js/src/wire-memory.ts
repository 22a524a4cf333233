import type { WireKind } from "./wires/wire.js";

/** Milliseconds a wire rests after its first failure; each further one doubles it. */
export const FIRST_REST = 30_000;
const LONGEST_REST = 15 * 60_000;

interface Network {
  winner?: WireKind;
  rests: { [kind in WireKind]?: { failures: number; until: number } };
}

/** Where a page keeps what it learned; Node has none. */
type Store = Pick<Storage, "getItem" | "setItem">;

/**
 * Which wire won on this network and which failed, beyond a reload. A wire that failed rests: browsers slow down
 * a page that hammers WebTransport, and good attempts wait with the bad ones.
 */
export class WireMemory {
  private key = "";
  private network: Network = { rests: {} };

  constructor(
    private readonly base: string,
    private readonly store: Store | undefined = localStore(),
    private readonly now: () => number = Date.now,
  ) {
    this.load();
  }

  get winner(): WireKind | undefined {
    return this.network.winner;
  }

  /** When `kind` may be tried again, in milliseconds since 1970; 0: it did not fail. */
  restsUntil(kind: WireKind): number {
    return this.network.rests[kind]?.until ?? 0;
  }

  resting(kind: WireKind): boolean {
    return this.restsUntil(kind) > this.now();
  }

  won(kind: WireKind): void {
    this.network.winner = kind;
    delete this.network.rests[kind];
    this.save();
  }

  /** `kind` failed where another wire works. */
  failed(kind: WireKind): void {
    const failures = (this.network.rests[kind]?.failures ?? 0) + 1;
    const rest = Math.min(FIRST_REST * 2 ** (failures - 1), LONGEST_REST);
    this.network.rests[kind] = { failures, until: this.now() + rest };
    this.save();
  }

  /** Reads again what is known: the network may be another. */
  load(): void {
    const connection = (globalThis.navigator as { connection?: { type?: string } } | undefined)?.connection;
    const key = `xpush ${this.base} ${connection?.type ?? "any"}`;
    if (key === this.key) return;
    this.key = key;
    this.network = { rests: {} };
    try {
      const network = JSON.parse(this.store?.getItem(key) ?? "null") as Network | null;
      if (typeof network?.rests === "object") this.network = network;
    } catch {
      // Someone else's, or no access: we learn anew.
    }
  }

  private save(): void {
    try {
      this.store?.setItem(this.key, JSON.stringify(this.network));
    } catch {
      // Full or forbidden: what was learned lasts as long as the page.
    }
  }
}

/** Node has a `localStorage` too in later versions, which needs a file: only a page's is meant. */
function localStore(): Store | undefined {
  try {
    return typeof document === "undefined" ? undefined : globalThis.localStorage;
  } catch {
    return undefined;
  }
}
