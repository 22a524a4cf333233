// The platform's API against a server that is a function.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { ApiError, LocalStore, Platform, inboxOf, type PlatformEvents } from "../src/platform/index.js";
import type { Session, TokenStore } from "../src/platform/token-store.js";
import { FakeNet } from "./fake-net.js";

/** What was asked: method, path with its query, body, and the token that was shown. */
interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly token: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** A server that gives pairs of tokens, each refresh token for one use, and takes the newest access token alone. */
class FakeServer {
  readonly asked: Asked[] = [];
  /** What it answers to a path, `["GET users/ann", …]`; absent: the request itself. */
  readonly answers = new Map<string, () => { status: number; body?: unknown }>();
  pair = 0;
  lifetime = 600;
  /** Questions wait until it is called. */
  release: (() => void) | undefined;
  private gate: Promise<void> | undefined;

  readonly fetch: typeof globalThis.fetch = async (input, init = {}) => {
    const url = new URL(String(input));
    const headers = init.headers as Record<string, string>;
    const token = headers["authorization"]?.replace("Bearer ", "");
    const body: unknown = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    const path = url.pathname.replace("/v1/", "") + url.search;
    this.asked.push({ method: init.method ?? "GET", path, body, token, headers });
    await this.gate;
    const { status, body: answer } = this.answer(init.method ?? "GET", path, body, token);
    return new Response(answer === undefined ? null : JSON.stringify(answer), { status });
  };

  hold(): void {
    this.gate = new Promise((resolve) => (this.release = resolve));
  }

  to(path: string): Asked[] {
    return this.asked.filter((asked) => asked.path === path);
  }

  private answer(method: string, path: string, body: unknown, token: string | undefined): { status: number; body?: unknown } {
    const special = this.answers.get(`${method} ${path}`);
    if (special) return special();
    if (path === "users" && method === "POST") return { status: 201, body: this.next() };
    if (path === "login") return { status: 200, body: this.next() };
    if (path === "login/refresh") {
      const { refresh_token } = body as { refresh_token: string };
      return refresh_token === `refresh-${this.pair}` ? { status: 200, body: this.next() } : problem(401, "invalid_token");
    }
    if (token !== `access-${this.pair}`) return problem(401, "token_expired");
    return method === "DELETE" || path === "logout" ? { status: 204 } : { status: 200, body: { method, path, body } };
  }

  private next(): object {
    this.pair++;
    return {
      user: "ann",
      app: "default",
      access_token: `access-${this.pair}`,
      token_type: "Bearer",
      expires_in: this.lifetime,
      refresh_token: `refresh-${this.pair}`,
      refresh_expires_in: 1000,
      device: "d1",
    };
  }
}

function problem(status: number, code: string, more: object = {}): { status: number; body: object } {
  return { status, body: { type: "about:blank", title: "No", status, detail: `because of ${code}`, code, retry: false, ...more } };
}

const platforms: Platform[] = [];

function start(server: FakeServer, options: { app?: string; store?: TokenStore } = {}): Platform {
  const platform = new Platform("https://push.test/", { fetch: server.fetch, ...options });
  platforms.push(platform);
  return platform;
}

async function signedIn(options: { store?: TokenStore } = {}): Promise<{ server: FakeServer; platform: Platform }> {
  const server = new FakeServer();
  const platform = start(server, options);
  await platform.login({ user: "ann", password: "secret" });
  return { server, platform };
}

afterEach(() => {
  for (const platform of platforms.splice(0)) platform.close();
});

test("who registers is signed in, and every call shows the token", async () => {
  const server = new FakeServer();
  const platform = start(server, { app: "shop" });
  const logins: string[] = [];
  platform.on("login", ({ user }) => logins.push(user));
  assert.equal(platform.user, undefined);
  await platform.register({ user: "ann", password: "secret", name: "Ann" }, { device: "d1", platform: "web" });
  assert.deepEqual([platform.user, platform.device, logins], ["ann", "d1", ["ann"]]);
  const [asked] = server.to("users");
  assert.deepEqual(asked?.body, { user: "ann", password: "secret", name: "Ann", app: "shop", device: { device: "d1", platform: "web" } });
  assert.equal(asked?.token, undefined);
  await platform.me.profile();
  assert.equal(server.to("users/ann")[0]?.token, "access-1");
});

test("nobody signed in: nothing is asked", async () => {
  const server = new FakeServer();
  const platform = start(server);
  await assert.rejects(async () => platform.me.profile(), { name: "ApiError", code: "unauthenticated" });
  assert.throws(() => platform.client(), { code: "unauthenticated" });
  await platform.logout();
  assert.deepEqual(server.asked, []);
});

test("many refused calls make one refresh, and are all done with the new token", async () => {
  const { server, platform } = await signedIn();
  server.pair = 1;
  server.answers.set("GET users/bob", () => (server.pair === 1 ? problem(401, "token_expired") : { status: 200, body: { user: "bob" } }));
  const profiles = await Promise.all(Array.from({ length: 20 }, () => platform.users.get("bob")));
  assert.equal(profiles.length, 20);
  assert.equal(server.to("login/refresh").length, 1);
  assert.deepEqual(server.to("login/refresh")[0]?.body, { refresh_token: "refresh-1" });
  assert.equal(server.to("users/bob").filter(({ token }) => token === "access-2").length, 20);
});

test("a refresh token is used once: each refresh shows the newest", async () => {
  const { server, platform } = await signedIn();
  for (let n = 1; n <= 3; n++) await platform.refresh();
  assert.deepEqual(
    server.to("login/refresh").map(({ body }) => (body as { refresh_token: string }).refresh_token),
    ["refresh-1", "refresh-2", "refresh-3"],
  );
  await Promise.all([platform.refresh(), platform.refresh(), platform.refresh()]);
  assert.equal(server.to("login/refresh").length, 4);
});

test("a token that is nearly over is replaced before it is shown", async () => {
  const server = new FakeServer();
  server.lifetime = 0;
  const platform = start(server);
  await platform.login({ user: "ann", password: "secret" });
  server.lifetime = 600;
  await platform.me.profile();
  assert.deepEqual(server.to("users/ann").map(({ token }) => token), ["access-2"]);
});

test("a refresh that is refused ends the session, once", async () => {
  const { server, platform } = await signedIn();
  const ended: PlatformEvents["ended"][] = [];
  platform.on("ended", (event) => ended.push(event));
  // Somebody else used it: the family is over.
  server.pair = 7;
  const outcomes = await Promise.allSettled([platform.me.profile(), platform.me.profile()]);
  assert.deepEqual(outcomes.map(({ status }) => status), ["rejected", "rejected"]);
  assert.deepEqual(ended.map(({ reason, error }) => [reason, (error as ApiError).code]), [["revoked", "invalid_token"]]);
  assert.equal(platform.user, undefined);
});

test("a server that is down for a while ends nothing", async () => {
  const { server, platform } = await signedIn();
  server.pair = 2;
  server.answers.set("POST login/refresh", () => problem(503, "directory_unavailable", { retry: true, retry_after: 250 }));
  await assert.rejects(platform.me.profile(), { status: 503, code: "directory_unavailable", retry: true, retryAfter: 250 });
  assert.equal(platform.user, "ann");
  server.answers.clear();
  server.pair = 1;
  await platform.refresh();
  await platform.me.profile();
});

test("a wrong password is an answer, and no reason to refresh", async () => {
  const { server, platform } = await signedIn();
  server.answers.set("PUT users/ann/password", () => problem(401, "invalid_credentials"));
  await assert.rejects(platform.me.password("wrong", "another one"), { status: 401, code: "invalid_credentials" });
  assert.equal(server.to("login/refresh").length, 0);
  assert.equal(platform.user, "ann");
});

test("what a server or a proxy says is an ApiError in full", async () => {
  const { server, platform } = await signedIn();
  server.answers.set("POST channels", () => problem(403, "permission_denied", { channel: "chat:a" }));
  const error = await platform.channels.create({ channel: "chat:a" }).catch((error: unknown) => error);
  assert.ok(error instanceof ApiError && error instanceof Error);
  assert.deepEqual([error.status, error.code, error.detail, error.retry, error.channel], [403, "permission_denied", "because of permission_denied", false, "chat:a"]);
  server.answers.set("POST channels", () => ({ status: 502, body: "bad gateway" }));
  await assert.rejects(platform.channels.create({}), { status: 502, code: "internal", retry: true });
});

test("a connection that broke is tried once more, and a POST says that it is the same one", async () => {
  const { server, platform } = await signedIn();
  let broken = 1;
  server.answers.set("POST channels", () => {
    if (broken-- > 0) throw new TypeError("fetch failed");
    return { status: 201, body: { channel: "chat:a" } };
  });
  await platform.channels.create({ title: "Trip" });
  const keys = server.to("channels").map(({ headers }) => headers["idempotency-key"]);
  assert.equal(keys.length, 2);
  assert.ok(keys[0] !== undefined && keys[0] === keys[1]);
  broken = 2;
  await assert.rejects(platform.channels.create({ title: "Trip" }), TypeError);
  assert.notEqual(server.to("channels").at(-1)?.headers["idempotency-key"], keys[0]);
});

test("signing out ends the session here even where the server can't be asked", async () => {
  const { server, platform } = await signedIn();
  const ended: string[] = [];
  platform.on("ended", ({ reason }) => ended.push(reason));
  server.answers.set("POST logout", () => problem(503, "directory_unavailable"));
  await assert.rejects(platform.logout({ all: true }), { status: 503 });
  assert.deepEqual(server.to("logout")[0]?.body, { all: true });
  assert.deepEqual([platform.user, ended], [undefined, ["requested"]]);
});

test("signed out while a refresh is under way: what comes belongs to nobody", async () => {
  const { server, platform } = await signedIn();
  server.hold();
  const refresh = platform.refresh();
  const logout = platform.logout();
  server.release?.();
  await logout;
  await refresh.catch(() => {});
  assert.equal(platform.user, undefined);
});

test("the session shows the token, and its next one before it ends", async () => {
  await withNet(async (net, platform, server) => {
    net.expiresIn = server.lifetime = 100;
    await platform.login({ user: "ann", password: "secret" });
    const client = platform.client();
    assert.equal(platform.client(), client);
    await net.pass(50);
    assert.equal(net.live.of("connect")[0]?.token, "access-1");
    await net.pass(81_000);
    assert.deepEqual(net.live.of("refresh").map(({ token }) => token), ["access-2"]);
  });
});

test("thrown out for good, the tokens are forgotten; for a session elsewhere, they are kept", async () => {
  for (const [closeCode, reason, user] of [
    [4504, "revoked", undefined],
    [4505, "elsewhere", "ann"],
  ] as const) {
    await withNet(async (net, platform) => {
      await platform.login({ user: "ann", password: "secret" });
      const client = platform.client();
      const ended: PlatformEvents["ended"][] = [];
      platform.on("ended", (event) => ended.push(event));
      await net.pass(50);
      net.live.ends(closeCode);
      await net.pass(50);
      assert.deepEqual([ended.map((event) => event.reason), platform.user, client.state], [[reason], user, "closed"]);
      if (user) assert.notEqual(platform.client(), client);
    });
  }
});

test("an inbox tells what happens by name, and that something was lost", async () => {
  await withNet(async (net, platform) => {
    await platform.login({ user: "ann", password: "secret" });
    const heard: unknown[] = [];
    platform.inbox.on("message", ({ channel, offset }) => heard.push([channel, offset]));
    platform.inbox.on("friend", ({ user, state }) => heard.push([user, state]));
    platform.inbox.on("gap", () => heard.push("gap"));
    await Promise.all([platform.inbox.subscribe(), net.pass(50)]);
    let offset = 0;
    for (const [event, data] of [
      ["message", { channel: "chat:a", offset: 3, event: "message" }],
      ["of a newer server", {}],
      ["friend", { user: "bob", state: "incoming" }],
      ["friend", "nothing that we know"],
    ] as const) {
      net.live.frame({ publication: { channel: "inbox:ann", offset: ++offset, message_id: `m${offset}`, event, data, time: 0 } });
    }
    net.live.frame({ gap: { channel: "inbox:ann", epoch: 3, from: 5, to: 6 } });
    await net.pass(10);
    assert.deepEqual(heard, [["chat:a", 3], ["bob", "incoming"], "gap"]);
    assert.equal(platform.inbox.cursor?.offset, 6);
  });
});

test("two tabs share one session: the second refresh takes what the first brought", async () => {
  const kept = new SharedStore();
  const { server, platform: one } = await signedIn({ store: kept });
  const other = start(server, { store: kept });
  assert.equal(other.user, "ann");
  // The locks of Node 24 and browsers; before, what stands in for them.
  const done = withLocks(async () => Promise.all([one.refresh(), other.refresh()]));
  await done;
  assert.equal(server.to("login/refresh").length, 1);
  await Promise.all([one.me.profile(), other.me.profile()]);
  assert.equal(one.user, "ann");
});

test("without locks, a tab that comes too late with its token goes on with the other's", async () => {
  const kept = new SharedStore();
  const { server, platform: one } = await signedIn({ store: kept });
  const other = start(server, { store: kept });
  await withoutLocks(async () => {
    server.hold();
    const both = [one.refresh(), other.refresh()];
    server.release?.();
    await Promise.all(both);
  });
  assert.equal(server.to("login/refresh").length, 2);
  assert.deepEqual([one.user, other.user, kept.read()?.access], ["ann", "ann", "access-2"]);
});

test("signed out in one tab, the other tab is as well", async () => {
  const kept = new SharedStore();
  const { server, platform: one } = await signedIn({ store: kept });
  const other = start(server, { store: kept });
  const ended: string[] = [];
  other.on("ended", ({ reason }) => ended.push(reason));
  await one.logout();
  assert.deepEqual([ended, other.user], [["revoked"], undefined]);
});

test("tokens in localStorage are found again, and rubbish there is nobody's", () => {
  const kept = new Map<string, string>();
  const storage = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value), removeItem: (key: string) => void kept.delete(key) };
  Object.assign(globalThis, { localStorage: storage });
  try {
    const store = new LocalStore("xpush:test");
    const session: Session = { user: "ann", app: "default", access: "a", accessUntil: 1, accessLife: 1, refresh: "r" };
    store.write(session);
    assert.deepEqual(new LocalStore("xpush:test").read(), session);
    store.write(undefined);
    assert.equal(kept.size, 0);
    for (const rubbish of ["{", "null", "7", `{"user":"ann"}`]) {
      kept.set("xpush:test", rubbish);
      assert.equal(store.read(), undefined, rubbish);
    }
    // A browser that keeps nothing: the session is the page's.
    storage.setItem = () => {
      throw new Error("full");
    };
    store.write(session);
    assert.deepEqual(store.read(), session);
  } finally {
    Reflect.deleteProperty(globalThis, "localStorage");
  }
});

test("each call has its method, its path and its body", async () => {
  const { server, platform } = await signedIn();
  const { channels, friends, groups, devices, users, me } = platform;
  const calls: [() => Promise<unknown>, string, string, unknown?][] = [
    [() => me.update({ name: "Ann", status: null }), "PATCH", "users/ann", { name: "Ann", status: null }],
    [() => me.export(), "GET", "users/ann/export"],
    [() => me.password("a", "b"), "PUT", "users/ann/password", { old: "a", new: "b" }],
    [() => devices.list({ limit: 5, cursor: "x" }), "GET", "users/ann/devices?limit=5&cursor=x"],
    [() => devices.register({ platform: "web" }), "POST", "users/ann/devices", { platform: "web" }],
    [() => devices.update("d1", { name: "Phone" }), "PATCH", "users/ann/devices/d1", { name: "Phone" }],
    [() => devices.revoke("d1"), "DELETE", "users/ann/devices/d1"],
    [() => users.search("b b", { field: "name" }), "GET", "users?q=b+b&field=name"],
    [() => users.presence("bob"), "GET", "users/bob/presence"],
    [() => friends.list({ state: "incoming" }), "GET", "users/ann/friends?state=incoming"],
    [() => friends.accept("bob"), "PUT", "users/ann/friends/bob", {}],
    [() => friends.remove("bob"), "DELETE", "users/ann/friends/bob"],
    [() => friends.block("bob"), "PUT", "users/ann/blocks/bob", {}],
    [() => friends.unblock("bob"), "DELETE", "users/ann/blocks/bob"],
    [() => groups.create("work", ["bob"]), "POST", "users/ann/groups", { name: "work", users: ["bob"] }],
    [() => groups.replace("g", "work", []), "PUT", "users/ann/groups/g", { name: "work", users: [] }],
    [() => channels.create({ title: "Trip", members: ["bob"] }), "POST", "channels", { title: "Trip", members: ["bob"] }],
    [() => channels.direct("bob"), "PUT", "users/ann/direct/bob", {}],
    [() => channels.list(), "GET", "users/ann/channels"],
    [() => channels.update("chat:a", { topic: null }), "PATCH", "channels/chat%3Aa", { topic: null }],
    [() => channels.delete("chat:a"), "DELETE", "channels/chat%3Aa"],
    [() => channels.invite("chat:a", "bob", { role: "admin" }), "PUT", "channels/chat%3Aa/members/bob", { role: "admin" }],
    [() => channels.join("chat:a"), "POST", "channels/chat%3Aa/join", {}],
    [() => channels.leave("chat:a"), "DELETE", "channels/chat%3Aa/members/ann"],
    [() => channels.kick("chat:a", "bob"), "DELETE", "channels/chat%3Aa/members/bob"],
    [() => channels.ban("chat:a", "bob"), "PUT", "channels/chat%3Aa/bans/bob", {}],
    [() => channels.unban("chat:a", "bob"), "DELETE", "channels/chat%3Aa/bans/bob"],
    [() => channels.mute("chat:a", "bob", 1_000), "PATCH", "channels/chat%3Aa/members/bob", { muted_until: 1_000 }],
    [() => channels.role("chat:a", "bob", "guest"), "PATCH", "channels/chat%3Aa/members/bob", { role: "guest" }],
    [() => channels.receipts("chat:a"), "GET", "channels/chat%3Aa/receipts"],
    [() => channels.deleteMessage("chat:a", 3), "DELETE", "channels/chat%3Aa/messages/3"],
  ];
  for (const [call, method, path, body] of calls) {
    await call();
    const asked = server.asked.at(-1);
    assert.deepEqual([asked?.method, asked?.path, asked?.body], [method, path, body], path);
  }
});

test("a user's name leads nowhere else in the API", async () => {
  const { server, platform } = await signedIn();
  for (const [user, path] of [
    ["../apps", "users/..%2Fapps"],
    ["a?b#c", "users/a%3Fb%23c"],
  ] as const) {
    await platform.users.get(user);
    assert.equal(server.asked.at(-1)?.path, path);
  }
});

test("an inbox has a channel's name, whatever the user's id", () => {
  assert.equal(inboxOf("ann"), "inbox:ann");
  assert.equal(inboxOf("ann@shop.test"), "inbox:~YW5uQHNob3AudGVzdA");
  assert.equal(inboxOf("~ann"), "inbox:~fmFubg");
  assert.equal(inboxOf("jürgen"), "inbox:~asO8cmdlbg".replace("asO8cmdlbg", Buffer.from("jürgen").toString("base64url")));
});

/** A platform whose session is over a net of its own. */
async function withNet(task: (net: FakeNet, platform: Platform, server: FakeServer) => Promise<void>): Promise<void> {
  const net = new FakeNet();
  const server = new FakeServer();
  const platform = new Platform("https://x", { fetch: server.fetch, client: net.options });
  try {
    await task(net, platform, server);
  } finally {
    platform.close();
    net.restore();
  }
}

/** One storage for several tabs, which tells each what another wrote. */
class SharedStore implements TokenStore {
  readonly name = "shared";
  private readonly watchers = new Set<() => void>();
  private session: Session | undefined;

  read(): Session | undefined {
    return this.session;
  }

  write(session: Session | undefined): void {
    this.session = session;
    for (const watcher of [...this.watchers]) watcher();
  }

  watch(changed: () => void): () => void {
    this.watchers.add(changed);
    return () => this.watchers.delete(changed);
  }
}

async function withLocks(task: () => Promise<unknown>): Promise<void> {
  let last: Promise<unknown> = Promise.resolve();
  const request = (_name: string, work: () => Promise<unknown>): Promise<unknown> => (last = last.then(work, work));
  await withNavigator({ locks: { request } }, task);
}

function withoutLocks(task: () => Promise<unknown>): Promise<void> {
  return withNavigator({}, task);
}

async function withNavigator(value: object, task: () => Promise<unknown>): Promise<void> {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
  try {
    await task();
  } finally {
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else Reflect.deleteProperty(globalThis, "navigator");
  }
}
