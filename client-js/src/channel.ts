import { Backoff } from "./backoff.js";
import { CommandError } from "./errors/command-error.js";
import { QueueFullError } from "./errors/queue-full-error.js";
import { Emitter } from "./emitter.js";
import type { HistoryPage, PresenceList, Publication } from "./message.js";
import { Sequence } from "./sequence.js";
import type * as wire from "./wire.js";
import type { Lane } from "./wires/wire.js";

/** Publications that wait for a `for await` loop; one more ends the loop with an error. */
export const ITERATOR_CAPACITY = 16_384;

/** Milliseconds a hole may stay open on a wire of several streams before the log is asked. */
const HOLE_DEADLINE = 3_000;

/** What happens in a channel. */
export interface ChannelEvents {
  /** The next message: each once, in order. */
  publication: Publication;
  join: wire.Join;
  leave: wire.Leave;
  /** How many sessions are in the channel now. */
  occupancy: wire.Occupancy;
  /** These publications can't be had any more. */
  gap: wire.Gap;
  /** We read more slowly than the channel speaks; `behind: 0` says that it is live again. */
  lag: wire.Lag;
  /** The subscription is live, for the first time or again. */
  subscribed: wire.Subscribed;
  unsubscribed: wire.Unsubscribed;
  /** Somebody's signal: something of use now or not at all, as that they are writing. */
  signal: wire.ChannelSignal;
  /** How far a member has come: a later one never says less. */
  receipt: wire.Receipt;
  /** The server refused the subscription. Those that may succeed later are tried again. */
  error: CommandError;
}

export interface SubscribeOptions {
  /** Begin with the last this many publications. */
  last?: number;
  /** Begin behind this place. */
  cursor?: wire.Cursor;
}

export interface PublishOptions {
  /** What kind of message it is; `message` if absent. */
  event?: string;
  /** An id of the application's own: published again with the same one, the message stands once in the log. */
  messageId?: string;
  /** The offset of the message that it answers. */
  replyTo?: number;
  /** Users who are named in it: they are told, in their inbox, though they have silenced the channel. At most 20. */
  mentions?: string[];
  /** Milliseconds after which the message is gone. */
  expiresIn?: number;
}

export interface HistoryOptions {
  /** Forward: the page begins behind it. Backward: it ends before it. Absent: at the oldest, or at the newest. */
  cursor?: wire.Cursor;
  /** Newest first. */
  backward?: boolean;
  /** 1 to 256; absent: 50. */
  limit?: number;
}

/** What a channel needs of its client. */
export interface ChannelLink {
  /** Sends the frame where there is a connection, and tells its id. Its answer comes to the channel. */
  subscribe(channel: Channel, subscribe: Omit<wire.Subscribe, "id">): number | undefined;
  unsubscribe(name: string): Promise<void>;
  publish(name: string, data: unknown, options: PublishOptions): Promise<wire.Cursor>;
  cast(name: string, data: unknown, event: string | undefined): void;
  signal(name: string, event: string, data: unknown): void;
  mark(kind: "read" | "received", name: string, offset: number): Promise<void>;
  history(name: string, options: HistoryOptions): Promise<HistoryPage>;
  presence(name: string): Promise<PresenceList>;
  /** Ends the wire; the next one has nothing late of this one. */
  renew(): void;
  random(): number;
}

/** A named, ordered stream of publications. Subscribed once, it stays so across wires, nodes and reconnects. */
export class Channel extends Emitter<ChannelEvents> implements AsyncIterable<Publication> {
  private readonly sequence: Sequence;
  private readonly backoff: Backoff;
  private wanted = false;
  private live = false;
  private last: number | undefined;
  /** The id of the command whose answer begins the subscription. */
  private awaiting: number | undefined;
  private promise: Promise<void> | undefined;
  private settle: { resolve(): void; reject(error: Error): void } | undefined;
  private count: number | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private holeTimer: ReturnType<typeof setTimeout> | undefined;
  private lane: Lane = "stream";
  /** That of the first subscription on this wire, if it is one of several streams. */
  private wireEpoch: number | undefined;
  private readonly enders = new Set<(error?: Error) => void>();

  /** @internal Use `client.channel(name)`. */
  constructor(
    readonly name: string,
    private readonly link: ChannelLink,
  ) {
    super();
    this.backoff = new Backoff(300, 10_000, () => link.random());
    this.sequence = new Sequence(name, {
      publication: (publication) => this.emit("publication", publication),
      lost: (gap) => this.emit("gap", gap),
      overflow: () => this.again(),
    });
  }

  /** Whether the subscription is live. */
  get subscribed(): boolean {
    return this.live;
  }

  /** The place behind the last publication that was handed on: to go on from there another time. */
  get cursor(): wire.Cursor | undefined {
    return this.sequence.cursor;
  }

  /** Sessions in the channel, as far as the server tells. */
  get occupancy(): number | undefined {
    return this.count;
  }

  /** Resolves once the subscription is live. Without options it begins now. Subscribed already: nothing changes. */
  subscribe(options: SubscribeOptions = {}): Promise<void> {
    if (this.wanted && this.promise) return this.promise;
    this.wanted = true;
    this.sequence.reset();
    this.last = options.cursor ? undefined : options.last;
    if (options.cursor) {
      this.sequence.start(options.cursor, undefined);
      this.sequence.suspend();
    }
    this.promise = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    // Who only listens to events need not take the promise.
    this.promise.catch(() => {});
    this.ask();
    return this.promise;
  }

  async unsubscribe(): Promise<void> {
    if (!this.wanted) return;
    this.drop(new CommandError({ code: "not_subscribed", message: "unsubscribed meanwhile", retry: false }));
    const done = this.link.unsubscribe(this.name);
    this.emit("unsubscribed", { channel: this.name, reason: "requested" });
    await done;
  }

  /**
   * Publishes a JSON value, or bytes (ArrayBuffer, typed array). Resolves with its place once the server has it
   * as durably as the namespace promises; until then it is kept, and sent again after a loss, never twice in the
   * log. Rejects with `QueueFullError` when too many wait.
   */
  publish(data: unknown, options: PublishOptions = {}): Promise<wire.Cursor> {
    return this.link.publish(this.name, data, options);
  }

  /**
   * Publishes what is worth nothing later (typing, pointers): no answer, no second try, in a datagram where the
   * wire has them. For channels of retention `none`.
   */
  cast(data: unknown, options: Pick<PublishOptions, "event"> = {}): void {
    this.link.cast(this.name, data, options.event);
  }

  /** Tells everybody who is in the channel now: kept nowhere, without an answer, and not sent again. */
  signal(event: string, data?: unknown): void {
    this.link.signal(this.name, event, data);
  }

  /** The user has read the channel up to here, on whichever device. It never goes back. */
  markRead(offset: number): Promise<void> {
    return this.link.mark("read", this.name, offset);
  }

  /** This device has the channel up to here. It never goes back. */
  markReceived(offset: number): Promise<void> {
    return this.link.mark("received", this.name, offset);
  }

  /** One page of the channel's log; the page's `next` is the cursor of the next one. */
  history(options: HistoryOptions = {}): Promise<HistoryPage> {
    return this.link.history(this.name, options);
  }

  /** Who is in the channel now. */
  presence(): Promise<PresenceList> {
    return this.link.presence(this.name);
  }

  /** The publications from now on. Subscribes if need be, and then unsubscribes when the loop is left. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Publication, void, void> {
    const ours = !this.wanted;
    const queue: Publication[] = [];
    let wake: (() => void) | undefined;
    let ended = false;
    let failure: Error | undefined;
    const end = (error?: Error): void => {
      ended = true;
      failure ??= error;
      wake?.();
    };
    const off = this.on("publication", (publication) => {
      if (queue.push(publication) > ITERATOR_CAPACITY) end(new QueueFullError("publications to read", ITERATOR_CAPACITY));
      wake?.();
    });
    this.enders.add(end);
    try {
      if (ours) await this.subscribe();
      for (;;) {
        const publication = failure ? undefined : queue.shift();
        if (publication) yield publication;
        else if (failure) throw failure;
        else if (ended) return;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      off();
      this.enders.delete(end);
      if (ours && this.wanted) void this.unsubscribe().catch(() => {});
    }
  }

  /** @internal The entry of a resume vector. `undefined`: it is not wanted, or is to be subscribed to by itself. */
  resume(): wire.Resubscribe | undefined {
    const cursor = this.sequence.cursor;
    if (!this.wanted || (!cursor && this.last !== undefined)) return undefined;
    return cursor ? { channel: this.name, cursor } : { channel: this.name };
  }

  /** @internal A connection is live. `id`: its `connect` named this channel. */
  connected(id: number | undefined): void {
    this.suspend();
    this.wireEpoch = undefined;
    if (id !== undefined && this.wanted) this.awaiting = id;
    else if (id !== undefined) void this.link.unsubscribe(this.name).catch(() => {});
    else this.ask();
  }

  /** @internal Whether it is to be subscribed, live or not yet. */
  get subscribing(): boolean {
    return this.wanted;
  }

  /** @internal Another node has the session: what it was not told of is asked for again. */
  moved(): void {
    if (this.live) return;
    this.awaiting = undefined;
    this.ask();
  }

  /** @internal There is no connection any more. */
  disconnected(): void {
    this.suspend();
  }

  /** @internal A frame about this channel. */
  take(frame: wire.ServerFrame, lane: Lane): void {
    if (!this.wanted) return;
    this.lane = lane;
    if ("publication" in frame) {
      this.sequence.take(frame.publication as Publication, lane);
      this.watchHole();
    } else if ("subscribed" in frame) this.begin(frame.subscribed);
    else if ("gap" in frame) {
      this.sequence.gap(frame.gap, lane);
      this.watchHole();
    } else if ("unsubscribed" in frame) this.ended(frame.unsubscribed);
    else if ("join" in frame) this.counted("join", frame.join);
    else if ("leave" in frame) this.counted("leave", frame.leave);
    else if ("occupancy" in frame) this.counted("occupancy", frame.occupancy);
    else if ("lag" in frame) this.emit("lag", frame.lag);
    else if ("signal" in frame) this.emit("signal", frame.signal);
    else if ("receipt" in frame) this.emit("receipt", frame.receipt);
  }

  /** @internal The subscription was refused. */
  refused(error: wire.Error, renewable: boolean): void {
    if (!this.wanted || error.id !== this.awaiting) return;
    this.awaiting = undefined;
    const failure = new CommandError(error);
    if (error.code === "already_subscribed") return this.again();
    if (error.code === "token_expired" && renewable) return;
    this.emit("error", failure);
    if (error.code === "cursor_ahead") {
      // The log lost what we have seen: there is nothing to go on from but now.
      this.sequence.reset();
      this.ask();
    } else if (error.retry) this.askLater(error.retry_after);
    else this.drop(failure);
  }

  /** @internal Asks for the subscription where it is wanted and not live: a new token is there. */
  ask(): void {
    clearTimeout(this.timer);
    if (!this.wanted || this.live || this.awaiting !== undefined) return;
    const cursor = this.sequence.cursor;
    this.awaiting = this.link.subscribe(this, {
      channel: this.name,
      ...(cursor ? { cursor } : this.last !== undefined && { last: this.last }),
    });
  }

  /** @internal */
  close(error: Error): void {
    this.drop(error);
    for (const end of this.enders) end(error);
  }

  private begin(subscribed: wire.Subscribed): void {
    const { cursor, gap, ephemeral } = subscribed;
    // Another node took the session over by itself: it says from where.
    if (subscribed.id === 0 && this.live) return this.sequence.start(cursor, gap, ephemeral);
    // The answer to a command before the last one says nothing about where this subscription begins.
    if (subscribed.id !== this.awaiting) return;
    // What is late of an earlier subscription, of another epoch, would be taken for this one's.
    if (this.lane === "stream" && (this.wireEpoch ??= cursor.epoch) !== cursor.epoch) return this.link.renew();
    this.awaiting = undefined;
    this.live = true;
    this.backoff.reset();
    if (subscribed.occupancy !== undefined) this.count = subscribed.occupancy;
    this.emit("subscribed", subscribed);
    this.settle?.resolve();
    this.sequence.start(cursor, gap, ephemeral);
    this.watchHole();
  }

  /** By itself, not at our wish. */
  private ended(unsubscribed: wire.Unsubscribed): void {
    if (unsubscribed.id !== undefined) return;
    this.suspend();
    if (unsubscribed.reason === "revoked") {
      this.drop(new CommandError({ code: "permission_denied", message: "the right was revoked", retry: false }));
    } else if (unsubscribed.reason === "log_unavailable") this.askLater(undefined);
    this.emit("unsubscribed", unsubscribed);
  }

  private counted<K extends "join" | "leave" | "occupancy">(name: K, event: ChannelEvents[K]): void {
    this.count = event.occupancy;
    this.emit(name, event);
    if (name !== "occupancy") this.emit("occupancy", { channel: this.name, occupancy: event.occupancy });
  }

  /** Asks for it again from the log, behind what we have: something is missing, or the server knows better. */
  private again(): void {
    this.suspend();
    void this.link.unsubscribe(this.name).catch(() => {});
    this.ask();
  }

  /** A hole that nothing fills: a stream was reset, or its end got lost. */
  private watchHole(): void {
    if (!this.sequence.holding) {
      clearTimeout(this.holeTimer);
      this.holeTimer = undefined;
      return;
    }
    const before = this.sequence.cursor?.offset;
    this.holeTimer ??= setTimeout(() => {
      this.holeTimer = undefined;
      if (!this.sequence.holding) return;
      // As long as it moves, the log is on its way.
      if (this.sequence.cursor?.offset !== before || this.lane === "ordered") this.watchHole();
      else this.again();
    }, HOLE_DEADLINE);
  }

  private askLater(delay: number | undefined): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), Math.max(delay ?? 0, this.backoff.next()));
  }

  private suspend(): void {
    this.live = false;
    this.awaiting = undefined;
    clearTimeout(this.timer);
    clearTimeout(this.holeTimer);
    this.holeTimer = undefined;
    this.sequence.suspend();
  }

  private drop(error: Error): void {
    this.wanted = false;
    this.promise = undefined;
    this.settle?.reject(error);
    this.settle = undefined;
    this.suspend();
    for (const end of this.enders) end();
  }
}
