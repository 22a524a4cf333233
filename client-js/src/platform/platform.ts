import { Client, ClosedError, Emitter, type ClientOptions } from "../index.js";
import { Api } from "./api.js";
import { ApiError } from "./api-error.js";
import { Channels } from "./channels.js";
import { Devices } from "./devices.js";
import { Friends } from "./friends.js";
import { Groups } from "./groups.js";
import { Inbox } from "./inbox.js";
import { Me } from "./me.js";
import { LocalStore, MemoryStore, type Session, type TokenStore } from "./token-store.js";
import { Tokens } from "./tokens.js";
import type { Credentials, DeviceInput, LoginAnswer, ProfileInput } from "./types.js";
import { Users } from "./users.js";

export interface PlatformOptions {
  /** The app whose users these are; absent: the server's default one. */
  app?: string;
  /** `true`: the tokens are kept in `localStorage`, over reloads and for all tabs. Absent: they go with the page. */
  remember?: boolean;
  /** Keeps the tokens elsewhere: a keychain, a file. */
  store?: TokenStore;
  /** For the session. */
  client?: Omit<ClientOptions, "token" | "getToken">;
  /** In the place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

export interface PlatformEvents {
  /** Somebody signed in. */
  login: Session;
  /**
   * The session is over. `requested`: by `logout`; `revoked`: user, device or login were taken back; `elsewhere`: the
   * app allows one session, and another began; the tokens are kept, and `client()` would throw the other out.
   */
  ended: { reason: "requested" | "revoked" | "elsewhere"; error?: Error };
}

/** An application's users, devices, contacts and channels, in the name of one user. */
export class Platform extends Emitter<PlatformEvents> {
  readonly me: Me;
  readonly devices: Devices;
  readonly users: Users;
  readonly friends: Friends;
  readonly groups: Groups;
  readonly channels: Channels;
  readonly inbox: Inbox;
  private readonly api: Api;
  private readonly tokens: Tokens;
  private live: Client | undefined;

  /** `url`: the server, as in `https://push.example`; in a page, "" is its own server. */
  constructor(
    private readonly url: string,
    private readonly options: PlatformOptions = {},
  ) {
    super();
    const fetch: typeof globalThis.fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    const name = `xpush:${url}:${options.app ?? "default"}`;
    const store = options.store ?? (options.remember ? new LocalStore(name) : new MemoryStore());
    this.api = new Api(url.replace(/\/+$/, ""), fetch, () => this.tokens);
    this.tokens = new Tokens(
      store,
      (refresh) => this.api.open("login/refresh", { refresh_token: refresh }),
      (error) => this.end("revoked", error),
    );
    const user = (): string => this.signedIn().user;
    this.me = new Me(this.api, user);
    this.devices = new Devices(this.api, user);
    this.users = new Users(this.api);
    this.friends = new Friends(this.api, user);
    this.groups = new Groups(this.api, user);
    this.channels = new Channels(this.api, user);
    this.inbox = new Inbox(() => this.client(), user);
  }

  /** Who is signed in. */
  get user(): string | undefined {
    return this.tokens.session?.user;
  }

  /** The device that this login is of. */
  get device(): string | undefined {
    return this.tokens.session?.device;
  }

  /** A new user, signed in. */
  register(user: Credentials & Partial<ProfileInput>, device?: DeviceInput): Promise<Session> {
    return this.enter("users", user, device);
  }

  login(credentials: Credentials, device?: DeviceInput): Promise<Session> {
    return this.enter("login", credentials, device);
  }

  /** Ends this login; `all`: every one of the user. The session ends at once, whether the server can be asked or not. */
  async logout(options: { all?: boolean } = {}): Promise<void> {
    if (!this.tokens.session) return;
    this.closeClient();
    try {
      await this.api.post("logout", options.all ? { all: true } : {});
    } catch (error) {
      // Over already: that was what was wanted.
      if (!(error instanceof ApiError) || !error.signedOut) throw error;
    } finally {
      this.tokens.forget();
      this.end("requested");
    }
  }

  /** A new pair of tokens now. It is done by itself whenever one is needed. */
  async refresh(): Promise<void> {
    await this.tokens.refresh();
  }

  /** The realtime session of who is signed in: the same one until it is closed. */
  client(): Client {
    this.signedIn();
    if (this.live && this.live.state !== "closed") return this.live;
    // Asked for a second time, the token that was given will not do, or not for long.
    let given: string | undefined;
    const client = new Client(this.url, {
      ...this.options.client,
      getToken: async () => (given = await this.tokens.access(given)),
    });
    client.on("error", (error) => {
      if (this.live !== client || !(error instanceof ClosedError)) return;
      if (error.code === "signed_in_elsewhere") this.end("elsewhere", error);
      else if (error.code === "revoked") {
        this.tokens.forget();
        this.end("revoked", error);
      }
    });
    return (this.live = client);
  }

  /** Ends the session of this page and listens no more; the login stays. */
  close(): void {
    this.tokens.stop();
    this.closeClient();
  }

  private async enter(path: string, who: object, device: DeviceInput | undefined): Promise<Session> {
    const { app } = this.options;
    const answer = await this.api.open<LoginAnswer>(path, { ...who, ...(app && { app }), ...(device && { device }) });
    this.closeClient();
    const session = this.tokens.take(answer);
    this.emit("login", session);
    return session;
  }

  private signedIn(): Session {
    const { session } = this.tokens;
    if (!session) throw new ApiError(401, { code: "unauthenticated", detail: "nobody is signed in" });
    return session;
  }

  private end(reason: PlatformEvents["ended"]["reason"], error?: Error): void {
    this.closeClient();
    this.emit("ended", { reason, ...(error && { error }) });
  }

  private closeClient(): void {
    const client = this.live;
    this.live = undefined;
    this.inbox.close();
    client?.close();
  }
}
