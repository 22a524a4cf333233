// The messenger, as people use it: in real Chromium, against the real server.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { XpushServer, launch, until } from "./server.mjs";

const PASSWORD = "correct horse battery";
const SHOTS = fileURLToPath(new URL("../../build/screenshots/", import.meta.url));

let server;
let browser;
const contexts = [];

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
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

/** A browser of its own: another device. What the page complains about is collected. */
async function device(options = {}) {
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
  await page.goto(server.url);
  return page;
}

async function signUp(user, name, options) {
  const page = await device(options);
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("User name").fill(user);
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Create account" }).click();
  await inside(page);
  return page;
}

async function logIn(user, options) {
  const page = await device(options);
  await page.getByLabel("User name").fill(user);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await inside(page);
  return page;
}

const inside = (page) => page.waitForFunction(() => document.getElementById("messenger") && document.documentElement.dataset.state === "connected");
const chat = (page, name) => page.getByRole("link", { name: new RegExp(`^\\S*\\s*${name}`) }).and(page.locator("#chats .row"));
const texts = (page) => page.locator("#bubbles .bubble:not(.pending) .text").allTextContents();
const reads = (page, text) => until(`"${text}" is read`, async () => (await texts(page)).includes(text));
const badge = (page, name) => page.locator("#chats .row", { hasText: name }).locator(".badge");
const unread = (page, name, count) =>
  until(`${name} has ${count} unread`, async () => {
    const badges = await badge(page, name).allTextContents();
    return count === 0 ? badges.length === 0 : badges[0] === `${count} unread`;
  });
/** What became of one's own message: sent, received, read. */
const fate = (page, text, expected) =>
  until(`"${text}" is ${expected}`, async () => {
    const ticks = page.locator("#bubbles .bubble.mine", { hasText: text }).locator(".ticks");
    return (await ticks.getAttribute("data-fate")) === expected;
  });

async function say(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByLabel("Message", { exact: true }).press("Enter");
}

/** Finds somebody by name, and asks. */
async function ask(page, name) {
  await page.getByRole("link", { name: /^Contacts/ }).click();
  await page.getByLabel("Find people").fill(name);
  await page.getByRole("button", { name: `Add ${name}` }).click();
  await page.getByRole("button", { name: `Take back the request to ${name}` }).waitFor();
  await page.getByLabel("Find people").fill("");
}

async function accept(page, name) {
  await page.getByRole("link", { name: /^Contacts/ }).click();
  await page.getByRole("button", { name: `Accept ${name}` }).click();
  await page.getByRole("button", { name: `Message ${name}` }).waitFor();
}

/** Two who are friends, and how they were made. */
async function friends(one, other) {
  const [first, second] = [await signUp(...one), await signUp(...other)];
  await ask(first, other[1]);
  await accept(second, one[1]);
  await first.getByRole("button", { name: `Message ${other[1]}` }).waitFor();
  return [first, second];
}

const openDirect = (page, name) => page.getByRole("button", { name: `Message ${name}` }).click();
const chats = (page) => page.getByRole("link", { name: /^Chats/ }).click();
const overflows = (page) => page.evaluate(() => document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollTop > 0);

test("two users sign up, become friends and talk: unread counts, receipts, typing, presence, replies, deletions", async () => {
  const [ann, bob] = await friends(["ann", "Ann Lee"], ["bob", "Bob Ray"]);
  await openDirect(ann, "Bob Ray");
  await until("Ann sees that Bob is there", async () => (await ann.textContent("#talk-status")) === "online");
  await say(ann, "Hello Bob");
  await reads(ann, "Hello Bob");
  // Bob's list is not open: the inbox tells him, and that he has it.
  await chats(bob);
  await unread(bob, "Ann Lee", 1);
  await fate(ann, "Hello Bob", "received");
  await say(ann, "Are you there?");
  await unread(bob, "Ann Lee", 2);
  assert.match(await bob.title(), /^\(2\)/);
  await chat(bob, "Ann Lee").click();
  await reads(bob, "Are you there?");
  await unread(bob, "Ann Lee", 0);
  await fate(ann, "Hello Bob", "read");
  await fate(ann, "Are you there?", "read");
  await bob.getByLabel("Message", { exact: true }).pressSequentially("Yes");
  await until("Ann sees Bob writing", async () => (await ann.textContent("#talk-typing")) === "Bob Ray is writing…");
  // He answers her first message.
  const first = bob.locator("#bubbles .bubble", { hasText: "Hello Bob" });
  await first.hover();
  await first.getByRole("button", { name: "Reply" }).click();
  await bob.getByLabel("Message", { exact: true }).press("Enter");
  await reads(ann, "Yes");
  await until("he writes no more", async () => (await ann.textContent("#talk-typing")) === "");
  const quote = ann.locator("#bubbles .bubble", { hasText: "Yes" }).locator(".quote");
  assert.match((await quote.textContent()) ?? "", /You.*Hello Bob/);
  await fate(bob, "Yes", "read");
  // She takes a word back.
  const second = ann.locator("#bubbles .bubble", { hasText: "Are you there?" });
  await second.hover();
  await second.getByRole("button", { name: "Delete" }).click();
  await ann.getByRole("button", { name: "Delete", exact: true }).and(ann.locator("#confirm-yes")).click();
  for (const page of [ann, bob]) {
    await until("it is gone", async () => !(await texts(page)).includes("Are you there?"));
    assert.ok((await texts(page)).includes("This message was deleted"));
  }
  await bob.reload();
  await inside(bob);
  await reads(bob, "Yes");
  assert.deepEqual(await texts(bob), ["Hello Bob", "This message was deleted", "Yes"]);
  await until("a wire and its latency are shown", async () => /^(WebTransport|WebSocket|Long-polling) · [\d.]+ ms$/.test((await ann.textContent("#badge-text")) ?? ""));
  await ann.screenshot({ path: `${SHOTS}direct.png`, animations: "disabled" });
  assert.deepEqual([ann.complaints, bob.complaints], [[], []]);
});

test("a group: made, joined, talked in, left", async () => {
  const [cid, dee] = await friends(["cid", "Cid Oak"], ["dee", "Dee Elm"]);
  await cid.getByRole("button", { name: "New group" }).click();
  await cid.getByLabel("What is it called?").fill("Weekend trip");
  await cid.getByRole("checkbox", { name: "Dee Elm" }).check();
  await cid.getByRole("button", { name: "Create" }).click();
  await until("it is open", async () => (await cid.textContent("#talk-title")) === "Weekend trip");
  await chats(dee);
  await until("Dee is invited", async () => (await badge(dee, "Weekend trip").allTextContents())[0] === "new");
  await chat(dee, "Weekend trip").click();
  await dee.getByRole("button", { name: "Join" }).click();
  await dee.getByLabel("Message", { exact: true }).waitFor();
  await say(cid, "Who brings the stove?");
  await reads(dee, "Who brings the stove?");
  await say(dee, "I do");
  await reads(cid, "I do");
  await fate(cid, "Who brings the stove?", "read");
  await cid.getByRole("button", { name: "About this conversation" }).click();
  const members = cid.locator("#details .row");
  await until("both are members", async () => {
    const rows = await members.allTextContents();
    return rows.length === 2 && rows.every((row) => !row.includes("invited"));
  });
  await cid.screenshot({ path: `${SHOTS}group.png`, animations: "disabled" });
  await cid.getByRole("button", { name: "Remove Dee Elm" }).click();
  await cid.locator("#confirm-yes").click();
  await until("Dee is out", async () => (await dee.locator("#chats .row", { hasText: "Weekend trip" }).count()) === 0);
  await until("and sees nothing more of it", () => dee.locator("#nothing").isVisible());
  await until("Cid is alone", async () => (await members.count()) === 1);
  await cid.getByRole("button", { name: "Delete the group" }).click();
  await cid.locator("#confirm-yes").click();
  await until("it is gone", async () => (await cid.locator("#chats .row", { hasText: "Weekend trip" }).count()) === 0);
  assert.deepEqual([cid.complaints, dee.complaints], [[], []]);
});

test("a second device is in sync, and can be thrown out by the first", async () => {
  const [eva, fay] = await friends(["eva", "Eva Fox"], ["fay", "Fay Owl"]);
  await openDirect(fay, "Eva Fox");
  for (let n = 1; n <= 3; n++) await say(fay, `message ${n}`);
  await chats(eva);
  await unread(eva, "Fay Owl", 3);
  const phone = await logIn("eva", { viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true });
  await unread(phone, "Fay Owl", 3);
  // What is read here is read there.
  await chat(phone, "Fay Owl").click();
  await reads(phone, "message 3");
  await unread(eva, "Fay Owl", 0);
  await chat(eva, "Fay Owl").click();
  await say(eva, "from the desk");
  await reads(phone, "from the desk");
  await say(phone, "from the phone");
  await reads(eva, "from the phone");
  await reads(fay, "from the phone");
  // What one device says, the other has in its list, open or not.
  await phone.getByRole("link", { name: "All chats" }).click();
  await say(eva, "once more");
  await until("the phone's list has it", async () => /You: once more/.test((await phone.locator("#chats .row").first().textContent()) ?? ""));
  await unread(phone, "Fay Owl", 0);
  await chat(phone, "Fay Owl").click();
  await reads(phone, "once more");
  await reads(fay, "once more");
  const expected = ["message 1", "message 2", "message 3", "from the desk", "from the phone", "once more"];
  for (const page of [eva, phone, fay]) assert.deepEqual(await texts(page), expected);
  await eva.getByRole("button", { name: "Profile and devices" }).click();
  await until("both devices are listed", async () => (await eva.locator("#devices .row").count()) === 2);
  await eva.screenshot({ path: `${SHOTS}devices.png`, animations: "disabled" });
  await eva.locator("#devices").getByRole("button", { name: /^Sign out/ }).click();
  await eva.locator("#confirm-yes").click();
  await until("the phone is at the door", () => phone.locator("#door").isVisible());
  assert.match((await phone.textContent("#door-note")) ?? "", /signed out/);
  await until("one device is left", async () => (await eva.locator("#devices .row").count()) === 1);
  await phone.reload();
  assert.ok(await phone.locator("#door").isVisible(), "it stays out");
  assert.equal(await eva.evaluate(() => document.documentElement.dataset.state), "connected");
  assert.deepEqual([eva.complaints, phone.complaints, fay.complaints], [[], [], []]);
});

test("signing out ends the session, also in the other tab; signing in brings everything back", async () => {
  const [gus, hal] = await friends(["gus", "Gus Ash"], ["hal", "Hal Elk"]);
  await openDirect(gus, "Hal Elk");
  await say(gus, "kept");
  await reads(gus, "kept");
  const tab = await gus.context().newPage();
  await tab.goto(server.url);
  await inside(tab);
  await gus.getByRole("button", { name: "Profile and devices" }).click();
  await gus.getByRole("button", { name: "Sign out", exact: true }).click();
  for (const page of [gus, tab]) await until("it is at the door", () => page.locator("#door").isVisible());
  await until("nothing is kept", () => gus.evaluate(() => !Object.keys(localStorage).some((key) => key.startsWith("xpush:"))));
  await tab.close();
  await gus.getByLabel("User name").fill("gus");
  await gus.getByLabel("Password").fill("not the password");
  await gus.getByRole("button", { name: "Sign in", exact: true }).click();
  await until("it says why not", () => gus.locator("#door-problem").isVisible());
  await gus.getByLabel("Password").fill(PASSWORD);
  await gus.getByRole("button", { name: "Sign in", exact: true }).click();
  await inside(gus);
  await chat(gus, "Hal Elk").click();
  await reads(gus, "kept");
  assert.deepEqual([gus.complaints, hal.complaints], [[], []]);
});

test("who is blocked can't write, and sees why not", async () => {
  const [ivy, jon] = await friends(["ivy", "Ivy Fir"], ["jon", "Jon Yew"]);
  await openDirect(jon, "Ivy Fir");
  await say(jon, "before");
  await reads(jon, "before");
  await ivy.getByRole("button", { name: "Block Jon Yew" }).click();
  await ivy.locator("#confirm-yes").click();
  await ivy.getByRole("button", { name: "Unblock Jon Yew" }).waitFor();
  await until("Jon can't write", async () => {
    if (await jon.locator("#write-text").isDisabled()) return true;
    await say(jon, "after");
    return until("it fails", () => jon.locator(".bubble.failed").first().isVisible(), 3_000).then(() => true, () => false);
  });
  assert.deepEqual([ivy.complaints, jon.complaints], [[], []]);
});

test("what was said while the server was down is sent when it is back, and old pages come by scrolling", async () => {
  const [kim, lou] = await friends(["kim", "Kim Bay"], ["lou", "Lou Cow"]);
  await openDirect(kim, "Lou Cow");
  for (let n = 1; n <= 90; n++) await say(kim, `line ${n}`);
  await until("all are acknowledged", async () => (await kim.locator("#bubbles .pending").count()) === 0);
  await server.kill();
  await until("the loss is said", () => kim.locator("#banner").isVisible());
  await say(kim, "written meanwhile");
  await server.run();
  await until("it was sent", async () => (await kim.locator("#bubbles .pending").count()) === 0);
  await until("the banner is gone", async () => !(await kim.locator("#banner").isVisible()));
  await until("Lou is back", () => lou.evaluate(() => document.documentElement.dataset.state === "connected"));
  await chats(lou);
  await chat(lou, "Kim Bay").click();
  await reads(lou, "written meanwhile");
  assert.ok((await texts(lou)).length < 60, "not everything at once");
  await until("the first comes by scrolling", async () => {
    await lou.locator("#talk-scroll").evaluate((element) => (element.scrollTop = 0));
    return (await texts(lou)).includes("line 1");
  });
  assert.deepEqual(await texts(lou), [...Array.from({ length: 90 }, (_, i) => `line ${i + 1}`), "written meanwhile"]);
  assert.deepEqual([kim.complaints, lou.complaints], [[], []]);
});

test("names, titles and texts can't inject markup", async () => {
  const evil = `<img src=x onerror="alert(1)"><b>`;
  const [mia, eve] = await friends(["mia", "Mia Gnu"], ["eve", evil]);
  await openDirect(eve, "Mia Gnu");
  await say(eve, evil);
  await chats(mia);
  await chat(mia, "<img").click().catch(() => mia.locator("#chats .row").first().click());
  await reads(mia, evil);
  await mia.getByRole("button", { name: "About this conversation" }).click();
  for (const page of [mia, eve]) {
    assert.equal(await page.locator("#messenger img, .toasts img, #messenger b b").count(), 0);
    assert.deepEqual(page.complaints, []);
  }
});

test("it fits a phone, in light and dark, one thing at a time, and by keyboard", async () => {
  const phone = { viewport: { width: 375, height: 740 }, hasTouch: true, isMobile: true };
  const [ned, oda] = await friends(["ned", "Ned Ape", phone], ["oda", "Oda Bee", { colorScheme: "dark" }]);
  assert.equal(await overflows(ned), false);
  await ned.screenshot({ path: `${SHOTS}phone-contacts.png`, animations: "disabled" });
  await openDirect(ned, "Oda Bee");
  await say(ned, `long${"x".repeat(300)}`);
  await say(ned, "Short");
  await openDirect(oda, "Ned Ape");
  await reads(oda, "Short");
  await oda.screenshot({ path: `${SHOTS}dark.png`, animations: "disabled" });
  await say(oda, "And back again, in a sentence that is long enough to be broken on a narrow screen.");
  await until("it is read", async () => (await texts(ned)).length === 3);
  assert.equal(await overflows(ned), false);
  assert.equal(await ned.locator("#chats").isVisible(), false);
  await ned.screenshot({ path: `${SHOTS}phone-direct.png`, animations: "disabled" });
  await ned.getByRole("button", { name: "About this conversation" }).click();
  assert.equal(await overflows(ned), false);
  await ned.keyboard.press("Escape");
  await until("the details are closed", async () => !(await ned.locator("#details").isVisible()));
  await ned.getByRole("link", { name: "All chats" }).click();
  await until("the list is back", () => ned.locator("#chats").isVisible());
  await ned.screenshot({ path: `${SHOTS}phone-chats.png`, animations: "disabled" });
  assert.equal(await ned.locator("#conversation").isVisible(), false);
  // By keyboard alone: to the chat, to the text, and off.
  await oda.getByRole("link", { name: /^Chats/ }).focus();
  await oda.keyboard.press("Enter");
  await oda.locator("#nothing").waitFor();
  await chat(oda, "Ned Ape").focus();
  await oda.keyboard.press("Enter");
  await oda.locator("#conversation").waitFor();
  await oda.getByLabel("Message", { exact: true }).focus();
  await oda.keyboard.type("by keyboard");
  await oda.keyboard.press("Enter");
  await reads(oda, "by keyboard");
  assert.deepEqual([ned.complaints, oda.complaints], [[], []]);
});
