import type { Encoded } from "../codec/codec.js";
import { defer } from "../defer.js";
import { fromJson } from "../codec/json-codec.js";
import { problem, request, type HttpRequest } from "../http.js";
import type * as wire from "../wire.js";
import type { Wire, WireEvents } from "./wire.js";

/** Seconds a poll hangs where there is nothing to say: the server's most. */
const WAIT = 25;

/** Milliseconds beyond `WAIT` after which an answer will not come any more. */
const GRACE = 10_000;

/** A failed request is sent again this often, with the same body: a second failure means that the server is gone. */
const RETRIES = 1;

const RETRY_DELAY = 250;

/** Frames of one request: as many as the server takes. */
const FRAMES = 64;

/** The beginning of a publish that wants an answer, as the codec writes it. */
const PUBLISH = /^{"publish":{"id":([1-9]\d*)/;

/** UTF-16 units of one request's frames, however they look in UTF-8. A single frame may be longer. */
const SIZE = 20_000;

/**
 * One lasting connection behind many requests: a poll that hangs, and a second request for what is said meanwhile.
 * Requests may reach different nodes, so publishes are handed over only when those before them are answered: a node
 * could die with them, and another take later ones first.
 */
export class LongPollWire implements Wire {
  private events: WireEvents | undefined;
  private state: string | undefined;
  private outbox: string[] = [];
  /** Publishes that were handed over and are not answered yet. */
  private readonly open = new Set<number>();
  private polling = false;
  private sending = false;
  private readonly requests = new Set<HttpRequest>();

  constructor(
    private readonly url: string,
    events: WireEvents,
  ) {
    this.events = events;
    // There is nothing to open; the first request carries the first frame.
    defer(() => this.events?.open());
  }

  send(frame: Encoded): void {
    // This wire is JSON.
    this.outbox.push(frame as string);
    defer(() => this.flush());
  }

  sendLossy(frame: Encoded): void {
    this.send(frame);
  }

  close(): void {
    this.events = undefined;
    for (const request of this.requests) request.cancel();
  }

  private flush(): void {
    if (!this.events || this.outbox.length === 0) return;
    if (!this.polling) void this.poll();
    else if (this.state !== undefined && !this.sending) void this.handOver();
  }

  /** Polls until the session ends. The answer's state goes with the next poll, which confirms the answer. */
  private async poll(): Promise<void> {
    this.polling = true;
    while (this.events) {
      // All but the first frames are handed over beside the poll: in two requests they could overtake each other.
      const frames = this.state === undefined ? this.take() : [];
      const answer = await this.post(body(this.state, frames, `"wait":${WAIT}`), WAIT * 1000 + GRACE);
      if (!answer) return;
      this.state = answer.state;
      this.deliver(answer);
      this.flush();
      if (answer.state === undefined) return this.end("the server ended the session");
    }
  }

  /** Commands beside a hanging poll, one request at a time so that they keep their order. */
  private async handOver(): Promise<void> {
    this.sending = true;
    while (this.events && this.state !== undefined) {
      const frames = this.take();
      if (frames.length === 0) break;
      const answer = await this.post(body(this.state, frames, `"send":true`), GRACE);
      if (!answer) return;
      this.deliver(answer);
    }
    this.sending = false;
  }

  /** What goes into the next request, in order. */
  private take(): string[] {
    const frames: string[] = [];
    const hold = this.open.size > 0;
    let size = 0;
    let full = false;
    this.outbox = this.outbox.filter((frame) => {
      const id = PUBLISH.exec(frame)?.[1];
      if (full || (hold && id)) return true;
      size += frame.length;
      full = frames.length === FRAMES || (frames.length > 0 && size > SIZE);
      if (full) return true;
      if (id) this.open.add(Number(id));
      frames.push(frame);
      return false;
    });
    return frames;
  }

  private async post(body: string, timeout: number): Promise<wire.PollAnswer | undefined> {
    for (let attempt = 0; ; attempt++) {
      const current = request(this.url, body, timeout);
      this.requests.add(current);
      let failure: string;
      try {
        const { status, body } = await current.answer;
        if (status === 200) return JSON.parse(body) as wire.PollAnswer;
        failure = `the server answered ${status}`;
        // It held the request for a while and took nothing: it is busy, not gone.
        if (status === 503) attempt = -1;
        else if (status >= 400 && status < 500) return this.refused(body, failure);
      } catch (error) {
        failure = String(error);
      } finally {
        this.requests.delete(current);
      }
      if (!this.events) return undefined;
      if (attempt >= RETRIES) {
        this.end(failure);
        return undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY));
      if (!this.events) return undefined;
    }
  }

  /** A refusal is told as an `error` frame. To ask again would change nothing. */
  private refused(body: string, reason: string): undefined {
    try {
      this.events?.frame({ error: problem(body) }, "ordered");
    } catch {
      // A proxy's page.
    }
    this.end(reason);
  }

  private deliver(answer: wire.PollAnswer): void {
    for (const frame of answer.frames) {
      if ("published" in frame) this.open.delete(frame.published.id);
      else if ("error" in frame) this.open.delete(frame.error.id ?? 0);
      else if ("connected" in frame && frame.connected.id === 0) {
        // Another node: all that is not answered comes again, and nothing before it.
        this.open.clear();
        this.outbox = this.outbox.filter((frame) => !PUBLISH.test(frame));
      }
      this.events?.frame(fromJson(frame), "ordered");
    }
  }

  private end(reason: string): void {
    const events = this.events;
    this.close();
    events?.close({ reason });
  }
}

/** The frames are JSON already: they are joined, not written again. */
function body(state: string | undefined, frames: readonly string[], last: string): string {
  return `{${state === undefined ? "" : `"state":${JSON.stringify(state)},`}"frames":[${frames.join(",")}],${last}}`;
}
