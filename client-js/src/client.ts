import { Backoff } from "./backoff.js";
import { randomId } from "./base64.js";
import { Channel, type ChannelLink } from "./channel.js";
import { JsonCodec } from "./codec/json-codec.js";
import { MsgpackCodec } from "./codec/msgpack-codec.js";
import { Connection } from "./connection.js";
import { Connector, type ClientState, type ConnectorHost, type Verdict, type WireChoice } from "./connector.js";
import { defer } from "./defer.js";
import { Directory, type Address } from "./directory.js";
import { Emitter } from "./emitter.js";
import { ClosedError } from "./errors/closed-error.js";
import { CommandError } from "./errors/command-error.js";
import { payload, type Message } from "./message.js";
import type { ClientOptions, WireFactory } from "./options.js";
import { Requests } from "./requests.js";
import { SendQueue } from "./send-queue.js";
import { TokenKeeper } from "./token-keeper.js";
import type * as wire from "./wire.js";
import { WireMemory } from "./wire-memory.js";
import { LongPollWire } from "./wires/longpoll-wire.js";
import { WebSocketWire } from "./wires/websocket-wire.js";
import { WebTransportWire } from "./wires/webtransport-wire.js";
import type { Lane, WireEnd, WireKind } from "./wires/wire.js";

const AGENT = "xpush-js/0.1.0";

/** Messages that may wait for their acknowledgement. */
const QUEUE_CAPACITY = 1_000;

/** Bytes of a `connect` that its resume vector may take; the other channels are subscribed to one by one. */
const VECTOR_BUDGET = 32_768;

/** What happens to a client. */
export interface ClientEvents {
  state: ClientState;
  /** The wire in use; `undefined`: none. */
  transport: WireKind | undefined;
  /** Milliseconds to the server and back. */
  rtt: number;
  /** A private message. */
  message: Message;
  /** Something failed. Unless it is a `ClosedError`, the client goes on and tries again. */
  error: Error;
}

/** One session with a server, over whichever wire works best, as long as `close` is not called. */
export class Client extends Emitter<ClientEvents> {
  private readonly channels = new Map<string, Channel>();
  private readonly queue: SendQueue;
  private readonly requests = new Requests();
  private readonly tokens: TokenKeeper;
  private readonly directory: Directory;
  private readonly connector: Connector;
  private readonly makers: { [kind in WireKind]?: WireFactory };
  /** Channels by the id of the `subscribe` that is under way. */
  private readonly subscribing = new Map<number, Channel>();
  private connectId = 0;
  private lastId = 0;
  private resumeState: string | undefined;
  private info: wire.Connected | undefined;
  private currentState: ClientState = "connecting";
  private lastRtt: number | undefined;

  /** `url`: the server, as in `https://push.example`; in a page, a path or "" is its own server. */
  constructor(
    url: string,
    private readonly options: ClientOptions = {},
  ) {
    super();
    const base = baseOf(url);
    this.queue = new SendQueue(options.queueCapacity ?? QUEUE_CAPACITY, options.random);
    this.tokens = new TokenKeeper(
      options.token,
      options.getToken,
      (token) => void this.refresh(token),
      (error) => this.emit("error", error),
    );
    this.makers = { ...makers(options), ...options.wires };
    const { base: first, cap } = options.backoff ?? { base: 200, cap: 20_000 };
    this.directory = new Directory(base, () => this.tokens.current, options.random);
    this.connector = new Connector(
      this.host(),
      this.directory,
      new WireMemory(base),
      new Backoff(first, cap, options.random),
    );
    // Listeners that are added right after the constructor miss nothing.
    defer(() => this.currentState !== "closed" && this.connector.start());
  }

  get state(): ClientState {
    return this.currentState;
  }

  /** The wire in use. */
  get transport(): WireKind | undefined {
    return this.connector.connection?.kind;
  }

  /** Milliseconds to the server and back, measured last. */
  get rtt(): number | undefined {
    return this.lastRtt;
  }

  /** The session's address: private messages go there. */
  get session(): string | undefined {
    return this.info?.session;
  }

  /** The user whom the token names. */
  get user(): string | undefined {
    return this.info?.user;
  }

  /** The node that holds the connection. */
  get node(): string | undefined {
    return this.info?.node;
  }

  /** Messages that are published and not acknowledged yet. */
  get unacknowledged(): number {
    return this.queue.size;
  }

  /** The channel of this name, always the same object: `namespace:rest`. */
  channel(name: string): Channel {
    let channel = this.channels.get(name);
    if (!channel) this.channels.set(name, (channel = new Channel(name, this.link)));
    return channel;
  }

  /** Sends a private message to whoever is connected now. Resolves with the number of sessions that it reached. */
  async send(to: wire.Target, data: unknown, options: { event?: string } = {}): Promise<number> {
    const id = this.nextId();
    const send: wire.Send = { id, to, ...event(options.event), ...payload(data) };
    const answer = await this.ask(id, { send }, false);
    return "sent" in answer ? answer.sent.sessions : 0;
  }

  /**
   * Uses this wire alone, or again the best there is. What is in use stays so until the other is live. Resolves
   * then; rejects when the first try fails, and goes on trying.
   */
  use(choice: WireChoice): Promise<void> {
    if (this.currentState === "closed") return Promise.reject(new ClosedError(4000, "closed"));
    return this.connector.use(choice);
  }

  /** Ends the session. What waits is rejected with `ClosedError`. */
  close(): void {
    this.end(4000, "closed by the application");
  }

  private readonly link: ChannelLink = {
    subscribe: (channel, subscribe) => {
      const connection = this.connector.connection;
      if (!connection || this.currentState === "closed") return undefined;
      const id = this.nextId();
      this.subscribing.set(id, channel);
      connection.send({ subscribe: { id, ...subscribe } });
      return id;
    },
    unsubscribe: async (channel) => {
      // Without a connection there is nothing to end: the next one will not name the channel.
      if (!this.connector.connection) return;
      const id = this.nextId();
      await this.ask(id, { unsubscribe: { id, channel } }, false).catch(() => {});
    },
    publish: async (channel, data, options) => {
      if (this.currentState === "closed") throw new ClosedError(4000, "closed");
      const { messageId = randomId(), replyTo, mentions, expiresIn } = options;
      return this.queue.push({
        id: this.nextId(),
        channel,
        message_id: messageId,
        ...event(options.event),
        ...(replyTo !== undefined && { reply_to: replyTo }),
        ...(mentions && { mentions }),
        ...(expiresIn !== undefined && { expires_in: expiresIn }),
        ...payload(data),
      });
    },
    cast: (channel, data, name) => {
      const publish: wire.Publish = { id: 0, channel, ...event(name), ...payload(data) };
      this.connector.connection?.sendLossy({ publish });
    },
    signal: (channel, name, data) => {
      const signal: wire.Signal = { id: 0, channel, event: name, ...(data !== undefined && { data }) };
      this.connector.connection?.send({ signal });
    },
    mark: async (kind, channel, offset) => {
      const id = this.nextId();
      await this.ask(id, { [kind]: { id, channel, offset } } as wire.ClientFrame, true);
    },
    history: async (channel, options) => {
      const id = this.nextId();
      const answer = await this.ask(id, { history: { id, channel, ...options } }, true);
      return (answer as { history: wire.HistoryPage & { publications: never[] } }).history;
    },
    presence: async (channel) => {
      const id = this.nextId();
      const answer = await this.ask(id, { presence: { id, channel } }, true);
      return (answer as { presence: wire.PresenceList }).presence;
    },
    renew: () => this.connector.connection?.break("the channel's log was lost"),
    random: () => (this.options.random ?? Math.random)(),
  };

  private ask(id: number, frame: wire.ClientFrame, repeatable: boolean): Promise<wire.ServerFrame> {
    if (this.currentState === "closed") return Promise.reject(new ClosedError(4000, "closed"));
    return this.requests.ask(id, frame, repeatable);
  }

  private nextId(): number {
    return (this.lastId = (this.lastId % 0xffffffff) + 1);
  }

  private host(): ConnectorHost {
    return {
      prepare: () => this.tokens.prepare(),
      hello: () => this.hello(),
      refused: (error) => this.refused(error),
      dial: (address, events) => this.dial(address, events),
      has: (kind) => this.makers[kind] !== undefined && (this.options.transports?.includes(kind) ?? true),
      adopted: (connection, connected, hello) => this.adopted(connection, connected, hello),
      lost: () => this.lost(),
      frame: (frame, lane) => this.take(frame, lane),
      rtt: (milliseconds) => this.emit("rtt", (this.lastRtt = milliseconds)),
      state: (state) => this.become(state),
      trouble: (error) => this.emit("error", error),
      ended: (code, reason) => this.end(code, reason),
    };
  }

  private dial(address: Address, events: ConstructorParameters<typeof Connection>[1]): Connection {
    const maker = this.makers[address.kind]!;
    const msgpack = this.options.codec === "msgpack" && address.kind !== "longpoll";
    return new Connection(
      {
        kind: address.kind,
        codec: msgpack ? new MsgpackCodec() : new JsonCodec(),
        open: (codec, events) => maker(address, codec, events),
        nextId: () => this.nextId(),
        deadAfter: this.options.deadAfter ?? 5_000,
      },
      events,
    );
  }

  private hello(): wire.Connect {
    const subscriptions: wire.Resubscribe[] = [];
    let size = 0;
    for (const channel of this.channels.values()) {
      const entry = channel.resume();
      if (!entry) continue;
      size += JSON.stringify(entry).length;
      if (size > VECTOR_BUDGET) break;
      subscriptions.push(entry);
    }
    const { ticket } = this.directory;
    const token = this.tokens.current;
    return {
      id: this.nextId(),
      ...(ticket !== undefined ? { ticket } : token !== undefined && { token }),
      ...(this.resumeState !== undefined && { state: this.resumeState }),
      subscriptions,
      agent: AGENT,
    };
  }

  private adopted(connection: Connection, connected: wire.Connected, hello: wire.Connect): void {
    this.connectId = hello.id;
    this.directory.avoid = undefined;
    this.subscribing.clear();
    this.know(connected);
    const named = new Set(hello.subscriptions?.map(({ channel }) => channel));
    const transmit = (frame: wire.ClientFrame): void => connection.send(frame);
    this.requests.attach(transmit);
    for (const channel of this.channels.values()) channel.connected(named.has(channel.name) ? hello.id : undefined);
    this.queue.attach(transmit, connected.limits.in_flight);
    this.emit("transport", connection.kind);
    this.become("connected");
  }

  private know(connected: wire.Connected): void {
    this.info = connected;
    this.resumeState = connected.state;
    this.tokens.expiresIn(connected.expires_in);
  }

  /** Long-polling goes on at another node by itself. What was under way may have been lost with the first. */
  private moved(connected: wire.Connected): void {
    this.know(connected);
    const connection = this.connector.connection;
    if (!connection) return;
    this.requests.attach((frame) => connection.send(frame));
    for (const channel of this.channels.values()) channel.moved();
    this.queue.again();
  }

  private lost(): void {
    this.directory.avoid = this.node;
    this.queue.detach();
    this.requests.detach();
    this.subscribing.clear();
    for (const channel of this.channels.values()) channel.disconnected();
    this.emit("transport", undefined);
  }

  private refused(error: wire.Error | CommandError | WireEnd): Verdict {
    switch (error.code) {
      case "invalid_state":
      case 4004:
        // Another one's, or of a key that is gone: a new session, with the same cursors.
        this.resumeState = undefined;
        return "again";
      case 4502: {
        // A browser may lose the words before the code: the state may have been meant as well.
        const another = this.resumeState !== undefined;
        this.resumeState = undefined;
        return this.deny(another);
      }
      case "unauthenticated":
      case "invalid_token":
      case "token_expired":
        return this.deny(false);
    }
    return "retry" in error && error.retry ? "later" : "never";
  }

  /** The token was not taken. `another`: something else is different the next time. */
  private deny(another: boolean): Verdict {
    // The token itself may do where what stood for it did not.
    if (this.directory.dropTicket()) return "again";
    this.tokens.drop();
    return another || this.tokens.renewable ? "again" : "never";
  }

  private take(frame: wire.ServerFrame, lane: Lane): void {
    if ("publication" in frame) this.toChannel(frame.publication.channel, frame, lane);
    else if ("published" in frame) this.queue.published(frame.published);
    else if ("error" in frame) this.failed(frame.error);
    else if ("subscribed" in frame) {
      const { id, channel } = frame.subscribed;
      this.subscribing.delete(id);
      // Where a resume vector is empty, the server goes by the state: it may name what was left meanwhile.
      const resumed = id === this.connectId || id === 0;
      if (resumed && !this.channels.get(channel)?.subscribing) void this.link.unsubscribe(channel);
      else this.toChannel(channel, frame, lane);
    } else if ("unsubscribed" in frame) {
      const { id, channel } = frame.unsubscribed;
      if (id !== undefined) this.requests.answered(id, frame);
      else this.toChannel(channel, frame, lane);
    } else if ("join" in frame) this.toChannel(frame.join.channel, frame, lane);
    else if ("leave" in frame) this.toChannel(frame.leave.channel, frame, lane);
    else if ("occupancy" in frame) this.toChannel(frame.occupancy.channel, frame, lane);
    else if ("gap" in frame) this.toChannel(frame.gap.channel, frame, lane);
    else if ("lag" in frame) this.toChannel(frame.lag.channel, frame, lane);
    else if ("signal" in frame) this.toChannel(frame.signal.channel, frame, lane);
    else if ("receipt" in frame) this.toChannel(frame.receipt.channel, frame, lane);
    else if ("done" in frame) this.requests.answered(frame.done.id, frame);
    else if ("history" in frame) this.requests.answered(frame.history.id, frame);
    else if ("presence" in frame) this.requests.answered(frame.presence.id, frame);
    else if ("sent" in frame) this.requests.answered(frame.sent.id, frame);
    else if ("refreshed" in frame) this.requests.answered(frame.refreshed.id, frame);
    else if ("message" in frame) this.emit("message", frame.message as Message);
    else if ("draining" in frame) {
      this.directory.avoid = this.node;
      this.connector.drain(frame.draining);
    } else if ("expired" in frame) this.expired();
    else if ("connected" in frame) this.moved(frame.connected);
  }

  private toChannel(name: string, frame: wire.ServerFrame, lane: Lane): void {
    this.channels.get(name)?.take(frame, lane);
  }

  private failed(error: wire.Error): void {
    const id = error.id ?? 0;
    const renewable = this.tokens.renewable;
    if (error.code === "token_expired" && renewable) this.expired();
    if (this.queue.refused(error, error.code === "token_expired" && renewable) || this.requests.refused(error)) return;
    const named = error.channel === undefined ? undefined : this.channels.get(error.channel);
    const channel = this.subscribing.get(id) ?? (id === this.connectId ? named : undefined);
    this.subscribing.delete(id);
    if (channel) channel.refused(error, renewable);
    else this.emit("error", new CommandError(error));
  }

  private expired(): void {
    if (!this.tokens.renewable) {
      const message = "the token expired, and there is no getToken";
      this.emit("error", new CommandError({ code: "token_expired", message, retry: false }));
    } else void this.tokens.renew();
  }

  private async refresh(token: string): Promise<void> {
    if (!this.connector.connection) return;
    try {
      const id = this.nextId();
      const answer = await this.ask(id, { refresh: { id, token } }, false);
      if ("refreshed" in answer) this.tokens.expiresIn(answer.refreshed.expires_in);
      for (const channel of this.channels.values()) channel.ask();
      this.queue.again();
    } catch (error) {
      // A lost wire needs nothing: the next `connect` brings the new token.
      if (!(error instanceof CommandError)) return;
      this.emit("error", error);
      if (error.retry) this.tokens.retry();
    }
  }

  private become(state: ClientState): void {
    if (this.currentState === state) return;
    this.currentState = state;
    this.emit("state", state);
  }

  private end(code: number, reason: string): void {
    if (this.currentState === "closed") return;
    const hadWire = this.transport !== undefined;
    // First of all, so that whatever a rejected promise sets off finds a closed client.
    this.currentState = "closed";
    this.tokens.stop();
    this.connector.close(4000, "closed by the application");
    const error = new ClosedError(code, reason);
    this.queue.close(error);
    this.requests.close(error);
    for (const channel of this.channels.values()) channel.close(error);
    if (hadWire) this.emit("transport", undefined);
    if (code !== 4000) this.emit("error", error);
    this.emit("state", "closed");
  }
}

function event(name: string | undefined): { event?: string } {
  return name === undefined ? {} : { event: name };
}

/** `https://host[:port][/path]`, without a slash at its end. */
function baseOf(url: string): string {
  const page = typeof location === "undefined" ? undefined : location.href;
  const { origin, protocol, host, pathname } = new URL(url.replace(/^ws/, "http"), page);
  return (origin === "null" ? `${protocol}//${host}` : origin) + pathname.replace(/\/+$/, "");
}

/** The wires of this page or process. */
function makers(options: ClientOptions): { [kind in WireKind]?: WireFactory } {
  const WebSocketClass = (options.WebSocket ?? globalThis.WebSocket) as typeof WebSocket | undefined;
  return {
    ...(typeof WebTransport === "function" && {
      webtransport: ({ url, hashes }, codec, events) => new WebTransportWire(url, hashes, codec, events),
    }),
    ...(WebSocketClass && {
      websocket: ({ url }, codec, events) => new WebSocketWire(url, codec, events, WebSocketClass),
    }),
    longpoll: ({ url }, _codec, events) => new LongPollWire(url, events),
  };
}
