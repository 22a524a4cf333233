import type { Codec } from "./codec/codec.js";
import { CommandError } from "./errors/command-error.js";
import type * as wire from "./wire.js";
import type { Lane, Wire, WireEnd, WireEvents, WireKind } from "./wires/wire.js";

/** Frames that overtake `connected` on other streams and are kept for it. */
const EARLY_CAPACITY = 4096;

/** Long-polling asks less often: each question is a request, and a request that fails tells at once. */
const LONGPOLL_PATIENCE = 4;

/** What a connection tells. */
export interface ConnectionEvents {
  opened(): void;
  /** The session is live. Called before any other frame is handed on, so that its receiver can be set. */
  connected(connected: wire.Connected): void;
  /** `connect` was refused. */
  refused(error: wire.Error): void;
  frame(frame: wire.ServerFrame, lane: Lane): void;
  closed(end: WireEnd): void;
  rtt(milliseconds: number): void;
}

/** How a connection is made. */
export interface ConnectionOptions {
  readonly kind: WireKind;
  readonly codec: Codec;
  open(codec: Codec, events: WireEvents): Wire;
  nextId(): number;
  /** Milliseconds without a frame after which the wire counts as dead. */
  readonly deadAfter: number;
}

/**
 * One wire with its hand-shake and a liveness check of its own: a server that was killed is noticed in seconds,
 * where QUIC's and TCP's time-outs take a quarter of a minute and more.
 */
export class Connection {
  readonly kind: WireKind;
  events: ConnectionEvents;
  private readonly wire: Wire;
  private early: [wire.ServerFrame, Lane][] | undefined = [];
  private limits: wire.Limits | undefined;
  private pingInterval = 0;
  private farewell: WireEnd | undefined;
  private ticker: ReturnType<typeof setInterval> | undefined;
  /** Ticks since the last frame came. */
  private silence = 0;
  /** Ticks since the last ping left. */
  private sincePing = 0;
  private lastPing = 0;
  private pings = new Map<number, number>();
  private over = false;

  constructor(
    private readonly options: ConnectionOptions,
    events: ConnectionEvents,
  ) {
    this.kind = options.kind;
    this.events = events;
    this.wire = options.open(options.codec, {
      open: () => this.events.opened(),
      frame: (frame, lane) => this.receive(frame, lane),
      close: (end) => this.end(this.farewell ?? end),
    });
  }

  /** The first frame. */
  greet(connect: wire.Connect): void {
    this.wire.send(this.options.codec.encode({ connect }));
  }

  /** Throws where the frame is longer than the server takes: it would close the connection for it. */
  send(frame: wire.ClientFrame): void {
    this.wire.send(this.encode(frame));
  }

  sendLossy(frame: wire.ClientFrame): void {
    this.wire.sendLossy(this.encode(frame));
  }

  /** Asks at once whether the wire lives: the page woke up, or the network changed. */
  probe(): void {
    if (this.ticker !== undefined) this.ping();
  }

  close(code: number, reason: string): void {
    if (this.over) return;
    this.stop();
    this.wire.close(code, reason);
  }

  private encode(frame: wire.ClientFrame): ReturnType<Codec["encode"]> {
    const encoded = this.options.codec.encode(frame);
    const limit = this.limits?.frame ?? Infinity;
    // A character of UTF-16 is at most three bytes of UTF-8: only long texts need to be measured.
    if (encoded.length * 3 > limit) {
      const size = typeof encoded === "string" ? new TextEncoder().encode(encoded).length : encoded.length;
      if (size > limit) {
        const message = `the frame has ${size} bytes, the server takes ${limit}`;
        throw new CommandError({ code: "too_large", message, retry: false });
      }
    }
    return encoded;
  }

  private receive(frame: wire.ServerFrame, lane: Lane): void {
    if (this.over) return;
    this.silence = 0;
    if ("pong" in frame) {
      const sent = this.pings.get(frame.pong.id);
      this.pings.delete(frame.pong.id);
      if (sent !== undefined) this.events.rtt(performance.now() - sent);
    } else if ("close" in frame) {
      this.farewell = { code: frame.close.code, reason: frame.close.reason };
      // The wire's own close is on its way. Where it does not come, we go.
      setTimeout(() => this.break(), 1000);
    } else if (this.early && "connected" in frame) {
      const early = this.early;
      this.early = undefined;
      this.limits = frame.connected.limits;
      this.pingInterval = frame.connected.ping_interval;
      this.watch();
      this.events.connected(frame.connected);
      for (const [frame, lane] of early) this.events.frame(frame, lane);
    } else if (this.early && "error" in frame) {
      this.events.refused(frame.error);
    } else if (this.early) {
      if (this.early.push([frame, lane]) > EARLY_CAPACITY) this.break();
    } else {
      this.events.frame(frame, lane);
    }
  }

  /** Counts ticks, not time: a computer that slept finds its frames waiting, not its wire dead. */
  private watch(): void {
    const patience = this.kind === "longpoll" ? LONGPOLL_PATIENCE : 1;
    const tick = (this.options.deadAfter * patience) / 4;
    this.ticker = setInterval(() => {
      const hidden = typeof document !== "undefined" && document.visibilityState === "hidden";
      // In sight, every other tick; out of sight, as seldom as the server allows. There, browsers may let ticks
      // come a minute apart, so the clock counts as well.
      const every = hidden ? Math.max(2, Math.floor(this.pingInterval / 2 / tick)) : 2;
      const overdue = Date.now() - this.lastPing > this.pingInterval / 2;
      if (++this.silence > every + 2) return this.break();
      if (++this.sincePing >= every || overdue) this.ping();
    }, tick);
    this.ping();
  }

  private ping(): void {
    this.sincePing = 0;
    this.lastPing = Date.now();
    const id = this.options.nextId();
    // Those before it without an answer are late at best.
    this.pings = new Map([...this.pings].slice(-2)).set(id, performance.now());
    this.wire.send(this.options.codec.encode({ ping: { id } }));
  }

  /** Gives the wire up. 4002 and not 4000: the server keeps the session's places, since it comes back. */
  break(reason = "nothing was heard"): void {
    if (this.over) return;
    this.wire.close(4002, reason);
    this.end(this.farewell ?? { reason });
  }

  private end(end: WireEnd): void {
    if (this.over) return;
    this.stop();
    this.events.closed(end);
  }

  private stop(): void {
    this.over = true;
    clearInterval(this.ticker);
  }
}
