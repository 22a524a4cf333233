import { mock } from "node:test";
import type { Encoded } from "../src/codec/codec.js";
import type { ClientOptions, WireFactory } from "../src/options.js";
import type * as wire from "../src/wire.js";
import { WIRE_KINDS, type Lane, type Wire, type WireEvents, type WireKind } from "../src/wires/wire.js";

/** What becomes of a wire that is dialled. */
export type Fate =
  /** It opens at once. */
  | "opens"
  /** It opens after this many milliseconds. */
  | number
  /** It fails at once. */
  | "refuses"
  /** It neither opens nor fails. */
  | "silent";

/** What becomes of a question to a node's HTTP API: an answer, another status, none ever, no connection. */
export type HttpFate = "answers" | number | "silent" | "refuses";

export const EPOCH = 3;

/** One wire of the net, from the server's side. */
export class FakeWire implements Wire {
  /** The client's frames, in order. */
  readonly sent: wire.ClientFrame[] = [];
  readonly lossy: wire.ClientFrame[] = [];
  readonly subscriptions = new Set<string>();
  open = false;
  /** The client or the net let go of it. */
  over = false;
  /** Frames go nowhere, in both directions: a server that was killed, a cable that was pulled. */
  dead = false;

  constructor(
    readonly kind: WireKind,
    readonly node: string,
    private readonly net: FakeNet,
    private readonly events: WireEvents,
  ) {}

  get lane(): Lane {
    return this.kind === "webtransport" ? "stream" : "ordered";
  }

  opens(): void {
    if (this.over) return;
    this.open = true;
    this.events.open();
  }

  /** A frame for the client. */
  frame(frame: wire.ServerFrame, lane = this.lane): void {
    if (!this.over && !this.dead) this.events.frame(structuredClone(frame), lane);
  }

  /** The wire breaks, or the server closes it. */
  ends(code?: number): void {
    if (this.over) return;
    this.over = true;
    this.events.close(code === undefined ? { reason: "cut" } : { code, reason: "closed" });
  }

  send(encoded: Encoded): void {
    if (!this.open) throw new Error("a frame before the wire was open");
    if (this.over || this.dead) return;
    const frame = JSON.parse(encoded as string) as wire.ClientFrame;
    this.sent.push(frame);
    queueMicrotask(() => this.net.command(this, frame));
  }

  sendLossy(encoded: Encoded): void {
    this.lossy.push(JSON.parse(encoded as string) as wire.ClientFrame);
  }

  close(): void {
    this.over = true;
  }

  /** Frames of one kind that the client sent. */
  of<K extends string>(kind: K): Extract<wire.ClientFrame, { [key in K]: unknown }>[K][] {
    return this.sent.flatMap((frame) => (kind in frame ? [(frame as never)[kind]] : []));
  }
}

/** A server and the net before it, with the clock in the test's hand. */
export class FakeNet {
  readonly wires: FakeWire[] = [];
  readonly fates: { [kind in WireKind]: Fate } = { webtransport: "opens", websocket: "opens", longpoll: "opens" };
  epoch = EPOCH;
  /** By host; those that are not named answer. */
  readonly http = new Map<string, HttpFate>();
  /** Nodes whose wires can't be had. */
  readonly down = new Set<string>();
  /** The node that tickets name; absent: there are no tickets. */
  assigned: string | undefined;
  /** The one that they name to who avoids that. */
  second = "n2";
  /** What was asked over HTTP: hosts and paths. */
  readonly asked: string[] = [];
  /** What a ticket was asked with. */
  readonly ticketRequests: wire.TicketRequest[] = [];
  /** The nodes that a ticket's answer names. */
  nodes: string[] = [];
  private tickets = 0;
  readonly log = new Map<string, wire.Publication[]>();
  /** What `connect` is answered with instead, once. */
  refusal: Omit<wire.Error, "id"> | undefined;
  /** Publishes are taken, and their acknowledgements lost. */
  swallow = false;
  /** Commands of this kind are not answered. */
  deaf: string | undefined;
  expiresIn: number | undefined;
  /** The live stream runs ahead of the one from the log. */
  overtake = false;
  private sessions = 0;
  private readonly fetch = globalThis.fetch;

  constructor() {
    mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
    globalThis.fetch = ((url: string, init: RequestInit) => this.answer(new URL(url), init)) as never;
  }

  restore(): void {
    globalThis.fetch = this.fetch;
    mock.timers.reset();
  }

  /** For the client's constructor. */
  get options(): ClientOptions {
    const factory: WireFactory = ({ kind, url }, _codec, events) => this.dial(kind, new URL(url).host, events);
    return { wires: { webtransport: factory, websocket: factory, longpoll: factory }, random: () => 0.5 };
  }

  private answer({ host, pathname }: URL, { body, signal }: RequestInit): Promise<unknown> {
    this.asked.push(host + pathname);
    const fate = this.http.get(host) ?? "answers";
    if (fate === "refuses") return Promise.reject(new TypeError("refused"));
    if (fate === "silent") return new Promise((_, reject) => signal!.addEventListener("abort", () => reject(new Error("aborted"))));
    const [status, answer] =
      typeof fate === "number"
        ? [fate, { status: fate, code: fate === 401 ? "token_expired" : "no_node", detail: "", retry: fate >= 500 }]
        : pathname === "/v1/transports"
          ? [200, this.document(host)]
          : this.assigned === undefined
            ? [404, ""]
            : [200, this.ticket(body as string)];
    return Promise.resolve({ status, text: () => Promise.resolve(JSON.stringify(answer)) });
  }

  private ticket(body: string): wire.Ticket {
    const request = JSON.parse(body) as wire.TicketRequest;
    this.ticketRequests.push(request);
    const node = request.avoid === this.assigned ? this.second : this.assigned!;
    return { ticket: `ticket${++this.tickets}`, expires_in: 60, node, wires: this.document(node), nodes: this.nodes };
  }

  private document(node: string): wire.Transports {
    const transports = WIRE_KINDS.map((kind) => ({ kind, url: `https://${node}/${kind}` }));
    return { version: "0", node, transports, certificate_hashes: [] };
  }

  /** The wire in use. */
  get live(): FakeWire {
    const live = this.wires.filter(({ over, sent }) => !over && sent.length > 0);
    if (live.length !== 1) throw new Error(`${live.length} wires are live`);
    return live[0]!;
  }

  kinds(): WireKind[] {
    return this.wires.map(({ kind }) => kind);
  }

  /** Lets time pass, and everything happen that it brings. */
  async pass(milliseconds: number): Promise<void> {
    await quiet();
    for (let left = milliseconds; left > 0; left -= 10) {
      mock.timers.tick(Math.min(10, left));
      await quiet();
    }
  }

  publish(channel: string, data: unknown, message_id = `s${Math.random()}`): wire.Published {
    let log = this.log.get(channel);
    if (!log) this.log.set(channel, (log = []));
    const known = log.find((publication) => publication.message_id === message_id);
    if (known) return { id: 0, cursor: { epoch: this.epoch, offset: known.offset }, duplicate: true };
    const publication = { channel, offset: log.length + 1, message_id, event: "message", data, time: Date.now() };
    log.push(publication);
    for (const wire of this.wires) if (wire.subscriptions.has(channel)) wire.frame({ publication });
    return { id: 0, cursor: { epoch: this.epoch, offset: publication.offset } };
  }

  command(wire: FakeWire, frame: wire.ClientFrame): void {
    if (wire.over || wire.dead || (this.deaf && this.deaf in frame)) return;
    if ("connect" in frame) this.connect(wire, frame.connect);
    else if ("subscribe" in frame) this.subscribe(wire, frame.subscribe);
    else if ("unsubscribe" in frame) {
      wire.subscriptions.delete(frame.unsubscribe.channel);
      wire.frame({ unsubscribed: { ...frame.unsubscribe, reason: "requested" } });
    } else if ("publish" in frame) {
      const { id, channel, data, message_id } = frame.publish;
      const published = this.publish(channel, data, message_id);
      if (!this.swallow) wire.frame({ published: { ...published, id } });
    } else if ("ping" in frame) wire.frame({ pong: frame.ping });
    else if ("refresh" in frame) wire.frame({ refreshed: { id: frame.refresh.id, expires_in: this.expiresIn! } });
    else if ("history" in frame) {
      const { id, channel } = frame.history;
      const publications = this.log.get(channel) ?? [];
      wire.frame({ history: { id, channel, publications, top: { epoch: this.epoch, offset: publications.length } } });
    } else if ("read" in frame) wire.frame({ done: { id: frame.read.id } });
    else if ("received" in frame) wire.frame({ done: { id: frame.received.id } });
    else if ("send" in frame) wire.frame({ sent: { id: frame.send.id, sessions: 1 } });
  }

  private connect(wire: FakeWire, { id, state, subscriptions }: wire.Connect): void {
    if (this.refusal) {
      wire.frame({ error: { id, ...this.refusal } });
      this.refusal = undefined;
      return;
    }
    const session = state ?? `session${++this.sessions}`;
    const limits = { frame: 1000, in_flight: 100, subscriptions: 100 };
    const expiry = this.expiresIn === undefined ? {} : { expires_in: this.expiresIn };
    wire.frame({ connected: { id, session, state: session, node: wire.node, ping_interval: 15_000, limits, ...expiry } });
    // One session, one connection: the older is told.
    for (const other of this.wires) {
      if (other !== wire && other.subscriptions.has(`session:${session}`)) {
        other.subscriptions.clear();
        other.ends(4004);
      }
    }
    wire.subscriptions.add(`session:${session}`);
    for (const entry of subscriptions ?? []) this.subscribe(wire, { id, ...entry });
  }

  private subscribe(wire: FakeWire, { id, channel, cursor, last }: wire.Subscribe): void {
    const log = this.log.get(channel) ?? [];
    const lost = cursor !== undefined && cursor.epoch !== this.epoch;
    const offset = lost ? 0 : (cursor?.offset ?? log.length - Math.min(last ?? 0, log.length));
    const gap = lost ? { gap: { channel, epoch: this.epoch, from: 1, to: 0 } } : {};
    const subscribed = { subscribed: { id, channel, cursor: { epoch: this.epoch, offset }, top: log.length, ...gap } };
    wire.subscriptions.add(channel);
    if (!this.overtake || wire.kind !== "webtransport") {
      wire.frame(subscribed);
      for (const publication of log.slice(offset)) wire.frame({ publication });
      return;
    }
    // What is live comes first, some of it before the answer even, and the log last, repeating a few.
    const half = offset + Math.floor((log.length - offset) / 2);
    for (const publication of log.slice(half, half + 50)) wire.frame({ publication });
    wire.frame(subscribed);
    for (const publication of log.slice(half + 50)) wire.frame({ publication });
    for (const publication of log.slice(offset, half + 3)) wire.frame({ publication });
  }

  private dial(kind: WireKind, node: string, events: WireEvents): FakeWire {
    const wire = new FakeWire(kind, node, this, events);
    this.wires.push(wire);
    const fate = this.down.has(node) ? "refuses" : this.fates[kind];
    if (fate === "opens") queueMicrotask(() => wire.opens());
    else if (fate === "refuses") queueMicrotask(() => wire.ends());
    else if (typeof fate === "number") setTimeout(() => wire.opens(), fate);
    return wire;
  }
}

/** Until all that is ready to run has run. The real `setImmediate`: only timers are the test's. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
