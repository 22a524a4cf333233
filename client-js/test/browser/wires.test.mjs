// Must-show 3: in real Chromium, against the real server.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { TcpProxy, UdpProxy, blackHole } from "./proxies.mjs";
import { XpushServer, freePort, launch, until } from "./server.mjs";

let server;
let browser;
const contexts = [];

before(async () => {
  server = await XpushServer.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(async () => {
  for (const context of contexts.splice(0)) await context.close();
});

/** A plain page of the server's origin. `ports`: where its wires lead, instead of to the server itself. */
async function blank(ports = {}) {
  const context = await browser.newContext();
  contexts.push(context);
  const page = await context.newPage();
  await page.route("**/v1/tickets", async (route) => {
    const ticket = await server.ticket(route.request().postData()).catch(() => undefined);
    // The server is down: so is this for the page.
    if (!ticket) return route.abort();
    for (const endpoint of ticket.wires.transports) {
      const port = ports[endpoint.kind];
      if (port) endpoint.url = endpoint.url.replace(/:\d+\//, `:${port}/`);
    }
    await route.fulfill({ json: ticket });
  });
  await page.goto(`${server.url}/healthz`);
  return page;
}

/** In the page: a client as `self.client`, and how long (ms) until it was live. */
function connect(page, options = {}) {
  return page.evaluate(async (options) => {
    const { Client } = await import("/xpush.js");
    const begin = performance.now();
    self.client = new Client("/", options);
    self.errors = [];
    client.on("error", (error) => self.errors.push(String(error)));
    await new Promise((resolve) => client.on("state", (state) => state === "connected" && resolve()));
    return { wire: client.transport, after: performance.now() - begin };
  }, options);
}

/** On a busy machine WebSocket may win the race: WebTransport takes over as soon as it is there. */
const best = (page) => until("WebTransport is used", () => page.evaluate(() => client.transport === "webtransport"));

test("WebTransport is used", async () => {
  const page = await blank();
  const live = await connect(page);
  console.log(`# live over ${live.wire} after ${Math.round(live.after)} ms`);
  await best(page);
});

test("with UDP blocked it is live over WebSocket within 3 s", async () => {
  const hole = await blackHole();
  try {
    const live = await connect(await blank({ webtransport: hole.port }));
    console.log(`# live over ${live.wire} after ${Math.round(live.after)} ms`);
    assert.equal(live.wire, "websocket");
    assert.ok(live.after < 3000, `${live.after} ms`);
  } finally {
    hole.stop();
  }
});

test("with WebSocket refused too, over long-polling within 10 s", async () => {
  const hole = await blackHole();
  try {
    const live = await connect(await blank({ webtransport: hole.port, websocket: await freePort() }));
    console.log(`# live over ${live.wire} after ${Math.round(live.after)} ms`);
    assert.equal(live.wire, "longpoll");
    assert.ok(live.after < 10_000, `${live.after} ms`);
  } finally {
    hole.stop();
  }
});

test("a browser without fetch talks over long-polling", async () => {
  const page = await blank();
  await page.evaluate(() => (self.fetch = undefined));
  const { wire } = await connect(page, { transports: ["longpoll"] });
  assert.equal(wire, "longpoll");
  const offset = await page.evaluate(async () => (await client.channel("room:xhr").publish("old but well")).offset);
  assert.equal(offset, 1);
});

test("10,000 numbered messages arrive each once and in order across three cuts", { timeout: 240_000 }, async () => {
  const MESSAGES = 10_000;
  const udp = await UdpProxy.to(server.tls);
  const tcp = await TcpProxy.to(server.http);
  try {
    const reader = await blank({ webtransport: udp.port, websocket: tcp.port });
    const writer = await blank();
    await connect(reader);
    await best(reader);
    await connect(writer);
    await reader.evaluate(async () => {
      self.heard = [];
      self.gaps = [];
      self.wires = [client.transport];
      client.on("transport", (kind) => self.wires.push(kind ?? "none"));
      const channel = client.channel("room:numbers");
      channel.on("publication", ({ data }) => heard.push(data));
      channel.on("gap", (gap) => gaps.push(gap));
      await channel.subscribe();
    });
    const written = writer.evaluate(async (count) => {
      const channel = client.channel("room:numbers");
      // Slow enough for the cuts to fall into it.
      for (let n = 1; n <= count; n += 50) {
        await Promise.all(Array.from({ length: 50 }, (_, i) => channel.publish(n + i)));
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
    }, MESSAGES);
    const heard = () => reader.evaluate(() => heard.length);
    /** Cuts once `count` were heard, and waits until the reader has noticed. */
    const cut = async (count, proxy) => {
      await until(`${count} are heard`, async () => (await heard()) >= count, 60_000);
      const seen = await reader.evaluate(() => wires.length);
      assert.ok(proxy.cut() > 0, "there was something to cut");
      await until("the cut is noticed and mended", () => reader.evaluate((n) => wires.length > n + 1 && client.transport !== undefined, seen));
    };
    await cut(1000, udp);
    await cut(3000, await reader.evaluate(() => client.transport) === "webtransport" ? udp : tcp);
    await reader.evaluate(() => client.use("websocket"));
    await cut(5000, tcp);
    await written;
    await until("all are heard", async () => (await heard()) >= MESSAGES, 60_000);
    const result = await reader.evaluate(() => ({ heard, gaps, wires }));
    console.log(`# wires: ${result.wires.join(" ")}`);
    assert.deepEqual(result.gaps, []);
    assert.equal(result.heard.length, MESSAGES);
    result.heard.forEach((n, i) => assert.equal(n, i + 1));
  } finally {
    udp.stop();
    await tcp.stop();
  }
});

test("a switch of wires loses and doubles nothing", async () => {
  const page = await blank();
  await connect(page);
  await best(page);
  const result = await page.evaluate(async () => {
    const heard = [];
    const used = [client.transport];
    const channel = client.channel("room:switch");
    channel.on("publication", ({ data }) => heard.push(data));
    await channel.subscribe();
    const cursors = [];
    for (const choice of ["websocket", "longpoll", "auto"]) {
      const switched = client.use(choice);
      for (let n = 0; n < 100; n++) cursors.push(channel.publish(cursors.length));
      await switched;
      used.push(client.transport);
    }
    const offsets = (await Promise.all(cursors)).map(({ offset }) => offset);
    // An answer behind all publications on every wire: what was published has been heard, or never will be.
    for (let i = 0; heard.length < 300 && i < 500; i++) await channel.history();
    return { heard, used, offsets };
  });
  assert.deepEqual(result.heard, Array.from({ length: 300 }, (_, i) => i));
  assert.deepEqual(result.offsets, Array.from({ length: 300 }, (_, i) => i + 1));
  assert.deepEqual(result.used.slice(0, 3), ["webtransport", "websocket", "longpoll"]);
});

for (const codec of ["json", "msgpack"]) {
  for (const wire of ["webtransport", "websocket"]) {
    test(`JSON and bytes travel as themselves in ${codec} over ${wire}`, async () => {
      const page = await blank();
      assert.equal((await connect(page, { codec, transports: [wire] })).wire, wire);
      const heard = await page.evaluate(async (name) => {
        const channel = client.channel(name);
        const heard = [];
        const all = new Promise((resolve) => channel.on("publication", (p) => heard.push(p) === 3 && resolve()));
        await channel.subscribe();
        await channel.publish({ text: "ü☕🎉", n: [1, -2, 0.5, 2 ** 40, null, true], deep: { a: {} } }, { event: "mixed" });
        await channel.publish(null);
        await channel.publish(new Uint8Array([0, 127, 128, 255]));
        await all;
        const { publications } = await channel.history();
        const plain = ({ data, binary, event }) => ({ data, binary: binary && [...binary], event });
        return [heard.map(plain), publications.map(plain)];
      }, `room:${codec}-${wire}`);
      const expected = [
        { data: { text: "ü☕🎉", n: [1, -2, 0.5, 2 ** 40, null, true], deep: { a: {} } }, binary: undefined, event: "mixed" },
        { data: null, binary: undefined, event: "message" },
        { data: undefined, binary: [0, 127, 128, 255], event: "message" },
      ];
      assert.deepEqual(heard, [expected, expected]);
    });
  }
}

test("a killed server is noticed in seconds on every wire, and the session goes on", { timeout: 120_000 }, async () => {
  const pages = {};
  for (const wire of ["webtransport", "websocket", "longpoll"]) {
    pages[wire] = await blank();
    await connect(pages[wire], { transports: [wire] });
    await pages[wire].evaluate(() => client.channel("room:killed").subscribe());
  }
  for (const page of Object.values(pages)) {
    await page.evaluate(() => {
      self.lost = new Promise((resolve) => client.on("transport", (kind) => kind ?? resolve()));
    });
  }
  const begin = Date.now();
  await server.kill();
  for (const [wire, page] of Object.entries(pages)) {
    await page.evaluate(() => lost);
    console.log(`# ${wire}: noticed within ${Date.now() - begin} ms`);
  }
  assert.ok(Date.now() - begin < 8000);
  // What is said meanwhile is kept.
  const said = pages.websocket.evaluate(() => client.channel("room:killed").publish("kept"));
  await server.run();
  await said;
  for (const page of Object.values(pages)) {
    await until("it is live again", () => page.evaluate(() => client.state === "connected"));
  }
});

test("the classic script gives XPUSH", async () => {
  const page = await blank();
  await page.addScriptTag({ path: fileURLToPath(new URL("../../dist/xpush.classic.js", import.meta.url)) });
  const offset = await page.evaluate(async () => {
    const client = new XPUSH.Client("/");
    return (await client.channel("room:classic").publish(1)).offset;
  });
  assert.equal(offset, 1);
});
