import type { Address } from "./directory.js";
import type { WireMemory } from "./wire-memory.js";
import type { WireKind } from "./wires/wire.js";

/** Milliseconds that a wire has for itself before the next is tried beside it. */
export const HEAD_START = 150;

/** Long-polling works nearly everywhere, and would win against a slow but better wire. */
export const LONGPOLL_START = 2_000;

/** One runner and when it starts, in milliseconds; all the rest having failed, it starts at once. */
export interface Runner {
  readonly address: Address;
  readonly delay: number;
}

/** Who runs when: the last winner first, then best first; who rests comes when all others have failed, if at all. */
export function planRace(addresses: readonly Address[], memory: WireMemory): Runner[] {
  const fit = addresses.filter(({ kind }) => !memory.resting(kind));
  const tired = addresses.filter(({ kind }) => memory.resting(kind));
  // A resting WebTransport is not even the last resort: browsers punish every failure of it with a longer wait.
  const last = tired.filter(({ kind }) => kind !== "webtransport" || addresses.every((a) => a.kind === kind));
  const winner = fit.filter(({ kind }) => kind === memory.winner);
  const order = [...winner, ...fit.filter((address) => !winner.includes(address))];
  let delay = 0;
  const plan = order.map((address, index) => {
    if (index > 0) delay = address.kind === "longpoll" ? Math.max(delay, LONGPOLL_START) : delay + HEAD_START;
    return { address, delay };
  });
  return [...plan, ...last.map((address) => ({ address, delay: plan.length === 0 ? 0 : Infinity }))];
}

/** Those that would be an improvement on `current`. The document's order is the server's word on what is better. */
export function betterThan(current: WireKind, addresses: readonly Address[]): Address[] {
  const rank = addresses.findIndex(({ kind }) => kind === current);
  return addresses.slice(0, Math.max(rank, 0)).filter(({ kind }) => kind !== current);
}
