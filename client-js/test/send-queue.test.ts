import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { CommandError } from "../src/errors/command-error.js";
import { QueueFullError } from "../src/errors/queue-full-error.js";
import { SendQueue } from "../src/send-queue.js";
import type * as wire from "../src/wire.js";

function message(id: number): wire.Publish {
  return { id, channel: "room:a", message_id: `m${id}`, data: id };
}

/** A queue with a wire that notes what it is given. */
function queue(capacity = 10, window = 10) {
  const sent: number[] = [];
  const queue = new SendQueue(capacity, () => 1);
  const attach = (): void =>
    queue.attach((frame) => {
      if ("publish" in frame) sent.push(frame.publish.id);
    }, window);
  return { queue, sent, attach };
}

const cursor = (offset: number): wire.Cursor => ({ epoch: 1, offset });

test("what is not acknowledged goes out again, in order, over the next wire", async () => {
  const { queue: q, sent, attach } = queue();
  const promises = [1, 2, 3].map((id) => q.push(message(id)));
  assert.deepEqual(sent, []);
  attach();
  q.published({ id: 2, cursor: cursor(2) });
  q.detach();
  promises.push(q.push(message(4)));
  attach();
  assert.deepEqual(sent, [1, 2, 3, 1, 3, 4]);
  for (const id of [1, 3, 4]) q.published({ id, cursor: cursor(id) });
  assert.deepEqual((await Promise.all(promises)).map(({ offset }) => offset), [1, 2, 3, 4]);
  assert.equal(q.size, 0);
});

test("a full queue rejects with a clear error", async () => {
  const { queue: q } = queue(2);
  void q.push(message(1));
  void q.push(message(2));
  await assert.rejects(q.push(message(3)), (error) => error instanceof QueueFullError && error.capacity === 2);
});

test("no more is in flight than the server takes", () => {
  const { queue: q, sent, attach } = queue(10, 2);
  attach();
  for (let id = 1; id <= 5; id++) void q.push(message(id));
  assert.deepEqual(sent, [1, 2]);
  q.published({ id: 1, cursor: cursor(1) });
  assert.deepEqual(sent, [1, 2, 3]);
});

test("a refusal for now is tried again after its time, before what came later", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const { queue: q, sent, attach } = queue(10, 2);
  attach();
  for (let id = 1; id <= 3; id++) void q.push(message(id));
  q.refused({ id: 1, code: "busy", message: "", retry: true, retry_after: 700 }, false);
  q.published({ id: 2, cursor: cursor(1) });
  assert.deepEqual(sent, [1, 2]);
  mock.timers.tick(699);
  assert.deepEqual(sent, [1, 2]);
  mock.timers.tick(1);
  assert.deepEqual(sent, [1, 2, 1, 3]);
});

test("a final refusal rejects its own message and no other", async () => {
  const { queue: q, sent, attach } = queue();
  attach();
  const first = q.push(message(1));
  const second = q.push(message(2));
  q.refused({ id: 1, code: "permission_denied", message: "no", retry: false }, false);
  await assert.rejects(first, (error) => error instanceof CommandError && error.code === "permission_denied");
  q.published({ id: 2, cursor: cursor(1) });
  assert.equal((await second).offset, 1);
  assert.deepEqual(sent, [1, 2]);
});

test("a refusal for an old token waits for the new one", () => {
  const { queue: q, sent, attach } = queue();
  attach();
  void q.push(message(1));
  q.refused({ id: 1, code: "token_expired", message: "", retry: false }, true);
  void q.push(message(2));
  assert.deepEqual(sent, [1]);
  q.again();
  assert.deepEqual(sent, [1, 1, 2]);
});

test("a message that is too large is its own publisher's problem", async () => {
  const q = new SendQueue(10);
  q.attach((frame) => {
    if ("publish" in frame && frame.publish.id === 1) throw new RangeError("too large");
  }, 10);
  await assert.rejects(q.push(message(1)), RangeError);
  const second = q.push(message(2));
  q.published({ id: 2, cursor: cursor(1) });
  assert.equal((await second).offset, 1);
});
