import type { Codec, CodecName } from "./codec/codec.js";
import type { Address } from "./directory.js";
import type { Wire, WireEvents, WireKind } from "./wires/wire.js";

/** Makes a wire. It must not call back before it has returned. */
export type WireFactory = (address: Address, codec: Codec, events: WireEvents) => Wire;

export interface ClientOptions {
  /** Who this is and what it may do. */
  token?: string;
  /** Fetches a token: at first, ahead of its expiry, and when one is refused. */
  getToken?: () => Promise<string> | string;
  /** The wires that may be used. Absent: all that this browser or process has. */
  transports?: readonly WireKind[];
  /** How frames become bytes. Long-polling is always JSON. Absent: JSON, which browsers parse fastest. */
  codec?: CodecName;
  /** The WebSocket class where there is no global one (Node before 22). */
  WebSocket?: unknown;
  /** Messages that may wait for their acknowledgement; more are refused with `QueueFullError`. Absent: 1,000. */
  queueCapacity?: number;
  /** Milliseconds without any frame after which a wire counts as dead. Absent: 5,000. */
  deadAfter?: number;
  /** Milliseconds of the first and the longest ceiling of the back-off. Absent: 200 and 20,000. */
  backoff?: { base: number; cap: number };
  /** Other ways to make a wire, for tests and platforms of their own. */
  wires?: { readonly [kind in WireKind]?: WireFactory };
  /** A number in [0, 1), for tests. */
  random?: () => number;
}
