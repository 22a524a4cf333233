import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type * as wire from "../src/wire.js";

interface Session {
  id: string;
  state: number;
  outbox: wire.ServerFrame[];
  /** The last answer, for a request that comes again. */
  confirmed: wire.ServerFrame[];
  poll?: (() => void) | undefined;
  subscriptions: Set<string>;
}

const EPOCH = 7;

/** Long-polling and nothing else, in memory: enough of a server to try the client against over real HTTP. */
export class TinyServer {
  private readonly http: Server;
  private readonly sessions = new Map<string, Session>();
  private readonly logs = new Map<string, wire.Publication[]>();
  /** Requests that are cut before they are answered, done or not. */
  cuts = 0;
  /** What the polls asked for. */
  readonly requests: wire.PollRequest[] = [];
  /** Answers paths that are not the protocol's. */
  files: (path: string, response: ServerResponse) => void = (_, response) => response.writeHead(404).end();

  constructor() {
    this.http = createServer((request, response) => void this.serve(request, response));
  }

  async start(port = 0): Promise<string> {
    await new Promise<void>((resolve) => this.http.listen(port, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.http.closeAllConnections();
    await new Promise((resolve) => this.http.close(resolve));
  }

  publish(publish: Omit<wire.Publish, "id">, user?: string): wire.Published {
    const log = this.log(publish.channel);
    const known = log.find(({ message_id }) => message_id === publish.message_id);
    if (known) return { id: 0, cursor: { epoch: EPOCH, offset: known.offset }, duplicate: true };
    const { channel, message_id = `m${log.length}`, event = "message", data, binary } = publish;
    const body = binary === undefined ? { data } : { binary };
    const publication = { channel, offset: log.length + 1, message_id, event, ...body, time: Date.now() };
    log.push(user === undefined ? publication : { ...publication, user });
    this.toChannel(channel, { publication: log[log.length - 1]! });
    return { id: 0, cursor: { epoch: EPOCH, offset: publication.offset } };
  }

  private log(channel: string): wire.Publication[] {
    let log = this.logs.get(channel);
    if (!log) this.logs.set(channel, (log = []));
    return log;
  }

  private toChannel(channel: string, frame: wire.ServerFrame): void {
    for (const session of this.sessions.values()) if (session.subscriptions.has(channel)) this.tell(session, frame);
  }

  private tell(session: Session, frame: wire.ServerFrame): void {
    session.outbox.push(frame);
    session.poll?.();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "/";
    if (path === "/v1/transports") {
      const url = `http://${request.headers.host}/v1/poll`;
      const transports: wire.Transports = {
        version: "0",
        node: "tiny",
        transports: [{ kind: "longpoll", url }],
        certificate_hashes: [],
      };
      response.end(JSON.stringify(transports));
    } else if (path === "/v1/poll") {
      let body = "";
      for await (const chunk of request) body += String(chunk);
      this.poll(JSON.parse(body) as wire.PollRequest, request, response);
    } else this.files(path, response);
  }

  private poll(poll: wire.PollRequest, request: IncomingMessage, response: ServerResponse): void {
    this.requests.push(poll);
    let session = poll.state === undefined ? undefined : this.sessions.get(poll.state.split(".")[0]!);
    if (!session) {
      if (poll.state !== undefined) return void response.end('{"frames":[]}');
      const id = String(this.sessions.size + 1).padStart(22, "s");
      session = { id, state: 0, outbox: [], confirmed: [], subscriptions: new Set() };
      this.sessions.set(id, session);
    }
    const live = session;
    for (const frame of poll.frames ?? []) this.command(live, frame);
    if (this.cuts > 0) {
      this.cuts--;
      request.socket.destroy();
      return;
    }
    if (poll.send) return void response.end('{"frames":[]}');
    // A state that is not the newest asks for the last answer again.
    const asked = Number(poll.state?.split(".")[1] ?? 0);
    if (asked < live.state) live.outbox.unshift(...live.confirmed);
    const answer = (): void => {
      clearTimeout(timer);
      live.poll = undefined;
      live.confirmed = live.outbox.splice(0);
      live.state++;
      response.end(JSON.stringify({ state: `${live.id}.${live.state}`, frames: live.confirmed }));
    };
    const timer = setTimeout(answer, (poll.wait ?? 25) * 1000);
    // A poll that is gone must not take an answer along.
    response.on("close", () => {
      clearTimeout(timer);
      if (live.poll === answer) live.poll = undefined;
    });
    if (live.outbox.length > 0) answer();
    else live.poll = answer;
  }

  private command(session: Session, frame: wire.ClientFrame): void {
    const tell = (frame: wire.ServerFrame): void => this.tell(session, frame);
    if ("connect" in frame) {
      const { id, subscriptions } = frame.connect;
      const limits = { frame: 65536, in_flight: 128, subscriptions: 128 };
      tell({ connected: { id, session: session.id, state: `s${session.id}`, node: "tiny", ping_interval: 15000, limits } });
      for (const { channel, cursor } of subscriptions ?? []) this.subscribe(session, { id, channel, ...(cursor && { cursor }) });
    } else if ("subscribe" in frame) this.subscribe(session, frame.subscribe);
    else if ("unsubscribe" in frame) {
      const { id, channel } = frame.unsubscribe;
      session.subscriptions.delete(channel);
      tell({ unsubscribed: { id, channel, reason: "requested" } });
      this.presence(channel, session, "leave");
    } else if ("publish" in frame) {
      const published = this.publish(frame.publish);
      if (frame.publish.id > 0) tell({ published: { ...published, id: frame.publish.id } });
    } else if ("history" in frame) {
      const { id, channel, cursor, backward, limit = 50 } = frame.history;
      const log = this.log(channel);
      const at = cursor?.offset ?? (backward ? log.length + 1 : 0);
      const all = backward ? log.slice(0, at - 1).reverse() : log.slice(at);
      const publications = all.slice(0, limit);
      const last = publications[publications.length - 1]?.offset;
      const next = all.length > limit && last !== undefined ? { next: { epoch: EPOCH, offset: last } } : {};
      tell({ history: { id, channel, publications, top: { epoch: EPOCH, offset: log.length }, ...next } });
    } else if ("presence" in frame) {
      const { id, channel } = frame.presence;
      const members = this.members(channel);
      tell({ presence: { id, channel, members, sessions: members.length, users: 0 } });
    } else if ("send" in frame) {
      const { id, to, event = "message", data } = frame.send;
      const target = "session" in to ? this.sessions.get(to.session) : undefined;
      if (target) this.tell(target, { message: { session: session.id, event, data } });
      tell(target ? { sent: { id, sessions: 1 } } : { error: { id, code: "not_connected", message: "nobody", retry: true } });
    } else if ("ping" in frame) tell({ pong: { id: frame.ping.id } });
  }

  private subscribe(session: Session, { id, channel, cursor, last }: wire.Subscribe): void {
    const log = this.log(channel);
    const from = cursor?.offset ?? log.length - Math.min(last ?? 0, log.length);
    session.subscriptions.add(channel);
    const occupancy = this.members(channel).length;
    this.tell(session, { subscribed: { id, channel, cursor: { epoch: EPOCH, offset: from }, top: log.length, occupancy } });
    for (const publication of log.slice(from)) this.tell(session, { publication });
    this.presence(channel, session, "join");
  }

  private members(channel: string): wire.Member[] {
    return [...this.sessions.values()].filter((s) => s.subscriptions.has(channel)).map((s) => ({ session: s.id }));
  }

  private presence(channel: string, session: Session, event: "join" | "leave"): void {
    const body = { channel, member: { session: session.id }, occupancy: this.members(channel).length };
    const frame = event === "join" ? { join: body } : { leave: body };
    for (const other of this.sessions.values()) {
      if (other !== session && other.subscriptions.has(channel)) this.tell(other, frame);
    }
  }
}
