// The open rooms of the demo page, as two people and a prying third see them.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { XpushServer, launch, until } from "./server.mjs";

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

/** A person with a browser of their own. What the page complains about is collected. */
async function person(name, { hash = "", ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  contexts.push(context);
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    page.complaints.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (/Content Security Policy|violates/i.test(message.text())) page.complaints.push(message.text());
  });
  await page.addInitScript((name) => {
    if (location.protocol === "http:" && localStorage.getItem("xpush-demo-name") === null) localStorage.setItem("xpush-demo-name", name);
  }, name);
  await page.goto(`${server.url}/${hash}`);
  await live(page);
  return page;
}

const live = (page) => page.waitForFunction(() => document.documentElement.dataset.state === "connected");
const texts = (page) => page.locator("#log .text").allTextContents();

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const reads = (page, text) => until(`"${text}" is read`, async () => (await texts(page)).includes(text));

test("two pages talk over WebTransport, and see each other come, write and go", async () => {
  const ada = await person("Ada", { hash: "#room/talk" });
  const bob = await person("Bob", { hash: "#room/talk" });
  await until("both use WebTransport", async () => {
    const wires = await Promise.all([ada, bob].map((page) => page.evaluate(() => document.documentElement.dataset.wire)));
    return wires.every((wire) => wire === "webtransport");
  });
  await say(ada, "Hello Bob");
  await reads(bob, "Hello Bob");
  await reads(ada, "Hello Bob");
  assert.equal(await ada.locator("#log .pending").count(), 0);
  await until("Ada sees Bob", async () => (await ada.locator("#people").textContent())?.includes("Bob"));
  await until("Bob sees Ada", async () => (await bob.locator("#people").textContent())?.includes("Ada"));
  assert.equal(await ada.textContent("#count"), "2 here now");
  await bob.locator("#text").pressSequentially("Hi");
  await until("Ada sees Bob writing", async () => (await ada.textContent("#typing")) === "Bob is writing…");
  await bob.press("#text", "Enter");
  await reads(ada, "Hi");
  await until("he writes no more", async () => (await ada.textContent("#typing")) === "");
  await ada.getByRole("button", { name: "Wave at Bob" }).click();
  await until("Bob is greeted", async () => (await bob.locator("#toasts").textContent())?.includes("Ada waves at you"));
  await until("a round trip is shown", async () => /^[\d.]+$/.test((await ada.textContent("#rtt")) ?? ""));
  assert.deepEqual([await ada.textContent("#sent"), await ada.textContent("#received")], ["1", "2"]);
  await bob.goto("about:blank");
  await until("Ada is alone again", async () => (await ada.textContent("#count")) === "Only you are here");
  assert.deepEqual([ada.complaints, bob.complaints], [[], []]);
});

test("what was said is there after kill -9, a new start and a reload", async () => {
  const ada = await person("Ada", { hash: "#room/kept" });
  for (let n = 1; n <= 60; n++) await say(ada, `message ${n}`);
  await until("all are acknowledged", async () => (await ada.locator("#log .pending").count()) === 0);
  await server.kill();
  await until("the loss is noticed", () => ada.evaluate(() => document.documentElement.dataset.state !== "connected"));
  await say(ada, "written meanwhile");
  await server.run();
  await live(ada);
  await until("it was sent", async () => (await ada.locator("#log .pending").count()) === 0);
  await ada.reload();
  await reads(ada, "written meanwhile");
  assert.equal((await texts(ada)).length, 50);
  await ada.click("#older");
  await reads(ada, "message 1");
  const expected = [...Array.from({ length: 60 }, (_, i) => `message ${i + 1}`), "written meanwhile"];
  assert.deepEqual(await texts(ada), expected);
  assert.equal(await ada.locator("#older").isVisible(), false);
  assert.deepEqual(ada.complaints, []);
});

test("names and texts can't inject markup", async () => {
  const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script>`;
  const ada = await person("Ada", { hash: "#room/evil" });
  const eve = await person(evil.slice(0, 40), { hash: "#room/evil" });
  await say(eve, evil);
  await reads(ada, evil);
  const rooms = await eve.evaluate(() => {
    location.hash = `room/${encodeURIComponent("<b>bold</b>")}`;
    return new Promise((resolve) => addEventListener("hashchange", () => resolve(document.getElementById("rooms").innerHTML), { once: true }));
  });
  assert.ok(!rooms.includes("<b>"));
  // What a client of another making may send.
  await ada.evaluate(async (evil) => {
    const { Client } = await import("/xpush.js");
    const client = new Client("/");
    await client.channel("room:evil").publish({ text: evil, name: evil, author: evil });
    await client.channel("room:evil").publish([evil]);
    await client.channel("typing:evil").publish({ name: evil, author: "eve", session: client.session }, { event: "typing" });
    client.close();
  }, evil);
  await reads(ada, JSON.stringify([evil]));
  for (const page of [ada, eve]) {
    assert.equal(await page.locator("#app img, #app script, #app b b, .toasts img").count(), 0);
    assert.deepEqual(page.complaints, []);
  }
});

test("a wire can be forced with the keyboard, and talk goes on", async () => {
  const ada = await person("Ada", { hash: "#room/forced" });
  const bob = await person("Bob", { hash: "#room/forced" });
  const wire = (kind) => until(`${kind} is used`, () => ada.evaluate((kind) => document.documentElement.dataset.wire === kind, kind));
  await ada.focus("#switch input[value=auto]");
  for (const kind of ["webtransport", "websocket", "longpoll"]) {
    await ada.keyboard.press("ArrowDown");
    await wire(kind);
    await say(ada, `over ${kind}`);
    await reads(bob, `over ${kind}`);
    await ada.focus(`#switch input[value=${kind}]`);
  }
  await ada.keyboard.press("ArrowDown");
  await wire("webtransport");
  assert.deepEqual(await texts(bob), ["over webtransport", "over websocket", "over longpoll"]);
  assert.deepEqual(ada.complaints, []);
});

test("rooms are apart, and kept", async () => {
  const ada = await person("Ada", { hash: "#room/one" });
  await say(ada, "in one");
  await reads(ada, "in one");
  await ada.fill("#room-name", "two rooms");
  await ada.press("#room-name", "Enter");
  await until("the other room is open", async () => (await ada.textContent("#room-title")) === "two-rooms");
  await until("it is empty", async () => (await texts(ada)).length === 0);
  await ada.reload();
  assert.equal(await ada.textContent("#room-title"), "two-rooms");
  await ada.click('#rooms a[href="#room/one"]');
  await reads(ada, "in one");
  await ada.fill("#room-name", "<>");
  await ada.press("#room-name", "Enter");
  assert.ok(await ada.locator("#room-problem").isVisible());
});

test("it fits a phone, and its panels open and close", async () => {
  const ada = await person("Ada", { viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true, hash: "#room/phone" });
  const wide = () => ada.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  await say(ada, `long${"x".repeat(300)}`);
  assert.equal(await wide(), false);
  for (const [opener, panel] of [
    ["#open-left", "#left"],
    ["#open-right", "#right"],
  ]) {
    assert.equal(await ada.locator(panel).isVisible(), false);
    await ada.click(opener);
    await ada.locator(panel).waitFor({ state: "visible" });
    assert.equal(await wide(), false);
    await ada.keyboard.press("Escape");
    await ada.locator(panel).waitFor({ state: "hidden" });
  }
  assert.deepEqual(ada.complaints, []);
});

test("the page's policy lets nothing in, and its answers are what was built", async () => {
  const page = await fetch(server.url);
  const policy = page.headers.get("content-security-policy") ?? "";
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self'/);
  assert.ok(!policy.includes("unsafe-"));
  for (const [path, type] of [
    ["/style.css", /text\/css/],
    ["/app.js", /javascript/],
    ["/xpush.js", /javascript/],
    ["/xpush-platform.js", /javascript/],
  ]) {
    const answer = await fetch(server.url + path);
    assert.equal(answer.status, 200, path);
    assert.match(answer.headers.get("content-type") ?? "", type);
  }
});
