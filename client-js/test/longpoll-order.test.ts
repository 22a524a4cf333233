import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { SendQueue } from "../src/send-queue.js";
import type * as wire from "../src/wire.js";
import { LongPollWire } from "../src/wires/longpoll-wire.js";

const realFetch = globalThis.fetch;

afterEach(() => {
  globalThis.fetch = realFetch;
});

/** Two nodes behind one address, which the test plays: what is handed over is noted, and polls hang until it answers. */
class Nodes {
  readonly handed: wire.ClientFrame[][] = [];
  private polls: ((answer: wire.PollAnswer) => void)[] = [];
  private state = 0;
  /** What the next hand-over is answered with: it reached another node. */
  next: wire.ServerFrame[] = [];

  constructor() {
    globalThis.fetch = ((_: string, { body }: { body: string }) => {
      const { frames = [], send } = JSON.parse(body) as wire.PollRequest;
      const respond = (answer: wire.PollAnswer): unknown => ({ status: 200, text: () => Promise.resolve(JSON.stringify(answer)) });
      if (!send) return new Promise((resolve) => this.polls.push((answer) => resolve(respond(answer))));
      this.handed.push(frames);
      return Promise.resolve(respond({ frames: this.next.splice(0) }));
    }) as never;
  }

  async answer(...frames: wire.ServerFrame[]): Promise<void> {
    this.polls.shift()!({ state: `${++this.state}`, frames });
    await quiet();
  }

  /** Publishes by id, a list for each request. */
  get published(): number[][] {
    return this.handed.map((frames) => frames.flatMap((frame) => ("publish" in frame ? [frame.publish.id] : [])));
  }
}

async function quiet(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

function connected(id: number): wire.ServerFrame {
  const limits = { frame: 65536, in_flight: 100, subscriptions: 100 };
  return { connected: { id, session: "s", state: "s", node: "n", ping_interval: 15000, limits } };
}

const published = (id: number): wire.ServerFrame => ({ published: { id, cursor: { epoch: 1, offset: id } } });

async function start(): Promise<{ nodes: Nodes; wire: LongPollWire; push(...ids: number[]): Promise<void> }> {
  const nodes = new Nodes();
  const queue = new SendQueue(1000);
  const wire: LongPollWire = new LongPollWire("http://x/v1/poll", {
    open: () => wire.send('{"connect":{"id":1}}'),
    frame: (frame) => {
      if ("published" in frame) queue.published(frame.published);
      else if ("error" in frame) queue.refused(frame.error, false);
      else if (!("connected" in frame)) assert.fail();
      else if (frame.connected.id === 0) queue.again();
      else queue.attach((frame) => wire.send(JSON.stringify(frame)), 100);
    },
    close: () => {},
  });
  await quiet();
  await nodes.answer(connected(1));
  const push = async (...ids: number[]): Promise<void> => {
    for (const id of ids) void queue.push({ id, channel: "room:a", message_id: `m${id}`, data: id }).catch(() => {});
    await quiet();
  };
  return { nodes, wire, push };
}

test("publishes wait for the answers to those that were handed over before them", async (t) => {
  const { nodes, wire, push } = await start();
  t.after(() => wire.close());
  await push(2, 3);
  await push(4);
  await push(5);
  assert.deepEqual(nodes.published, [[2, 3]]);
  await nodes.answer(published(2));
  assert.deepEqual(nodes.published, [[2, 3]]);
  await nodes.answer({ error: { id: 3, code: "permission_denied", message: "", retry: false } });
  assert.deepEqual(nodes.published, [[2, 3], [4, 5]]);
});

test("other commands wait for nothing", async (t) => {
  const { nodes, wire, push } = await start();
  t.after(() => wire.close());
  await push(2);
  await push(3);
  wire.send('{"ping":{"id":9}}');
  await quiet();
  assert.deepEqual(nodes.handed.slice(1), [[{ ping: { id: 9 } }]]);
});

test("another node gets all that is not answered, in order, before anything newer", async (t) => {
  const { nodes, wire, push } = await start();
  t.after(() => wire.close());
  await push(2, 3, 4);
  await push(5, 6);
  await nodes.answer(published(2));
  // The node dies with two messages that nobody has logged; the poll comes to another one.
  await nodes.answer(connected(0));
  await push(7);
  assert.deepEqual(nodes.published, [[2, 3, 4], [3, 4, 5, 6]]);
  await nodes.answer(...[3, 4, 5, 6].map(published));
  assert.deepEqual(nodes.published.slice(2), [[7]]);
});

test("a hand-over that reached another node is followed by all that is not answered", async (t) => {
  const { nodes, wire, push } = await start();
  t.after(() => wire.close());
  nodes.next = [connected(0)];
  await push(2, 3);
  assert.deepEqual(nodes.published, [[2, 3], [2, 3]]);
});
