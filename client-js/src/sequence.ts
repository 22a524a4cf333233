import type { Publication } from "./message.js";
import type * as wire from "./wire.js";
import type { Lane } from "./wires/wire.js";

/** Publications held while one before them is missing. Full: they are asked for again, from the log. */
export const HOLD_CAPACITY = 1024;

/** Epochs that were left and are remembered: what is late of them is no news. */
const PAST_EPOCHS = 8;

/** Before the answer to `subscribe`: the epoch of publications that leave theirs to it. No epoch is negative. */
const UNSAID = -1;

/** What comes out of a sequence. */
export interface SequenceEvents {
  /** The next publication, each once and in order. */
  publication(publication: Publication): void;
  /** These can't be had any more. */
  lost(gap: wire.Gap): void;
  /** Too much is held, or an epoch came back: subscribe again with the cursor. */
  overflow(): void;
}

/**
 * One channel's order, whatever the wire: several streams overtake each other, a resumed subscription repeats
 * what is known, a datagram gets lost. Old ones are dropped, what is ahead is held until the hole is filled.
 * Where the log is lost and begins anew, what is live of the new epoch may come before the news of it, or what is
 * left of the old one after.
 */
export class Sequence {
  private epoch: number | undefined;
  /** That of publications which do not say theirs: the one that the subscription began with. */
  private implied = UNSAID;
  /** Those that were left. */
  private past: number[] = [];
  private next = 0;
  /** Between a (re)subscription and its answer, where it begins is not known yet. */
  private waiting = true;
  /** This channel keeps nothing, and the latest wins: the server said so, or a datagram came. */
  private ephemeral = false;
  /** Ahead of `next`, in this epoch. */
  private held = new Map<number, Publication>();
  /** By epoch: what came of those that no gap and no answer has announced yet. */
  private readonly foreign = new Map<number, Map<number, Publication>>();
  private gaps: wire.Gap[] = [];

  constructor(
    private readonly channel: string,
    private readonly events: SequenceEvents,
  ) {}

  /** The place behind the last publication that was handed on. */
  get cursor(): wire.Cursor | undefined {
    return this.epoch === undefined ? undefined : { epoch: this.epoch, offset: this.next - 1 };
  }

  /** Whether something is held for what is missing before it. */
  get holding(): boolean {
    return !this.waiting && this.held.size + this.foreign.size + this.gaps.length > 0;
  }

  /** A subscription is asked for; what comes before its answer is held. */
  suspend(): void {
    this.waiting = true;
    this.implied = UNSAID;
    this.drop();
  }

  /** Forgets the place: the next subscription begins anew. */
  reset(): void {
    this.suspend();
    this.epoch = undefined;
    this.past = [];
    this.ephemeral = false;
  }

  /** The subscription's answer: it is live from `cursor` on. */
  start(cursor: wire.Cursor, gap: wire.Gap | undefined, ephemeral = false): void {
    this.ephemeral ||= ephemeral;
    const { epoch, offset } = cursor;
    const gaps = this.gaps.splice(0);
    this.waiting = false;
    this.implied = epoch;
    if (this.epoch === epoch) {
      this.claim(epoch);
      if (offset >= this.next) this.lose(gap, this.next, offset);
    } else {
      const known = this.epoch !== undefined;
      this.enter(epoch, offset + 1);
      if (gap) this.events.lost(gap);
      else if (known) this.events.lost({ channel: this.channel, epoch, from: 1, to: offset });
    }
    this.drain();
    for (const later of gaps) this.gap(later, "stream");
  }

  /** A publication came. */
  take(publication: Publication, lane: Lane): void {
    if (lane === "datagram") this.ephemeral = true;
    const { offset, epoch = this.implied } = publication;
    if (this.waiting) return this.hold(publication, epoch);
    if (epoch !== this.epoch) {
      if (this.past.includes(epoch)) return;
      if (this.ephemeral) this.enter(epoch, offset);
      else if (lane === "ordered") this.gap({ channel: this.channel, epoch, from: 1, to: offset - 1 }, lane);
      else return this.hold(publication, epoch);
    }
    if (offset < this.next) return;
    if (offset > this.next) {
      if (this.ephemeral) this.skip(offset);
      else if (lane === "ordered") this.lose(undefined, this.next, offset - 1);
      else return this.hold(publication, epoch);
    }
    this.deliver(publication);
    this.drain();
  }

  /** The server says what is lost. On a wire of several streams it may be early: what is before it still comes. */
  gap(gap: wire.Gap, lane: Lane): void {
    if (this.waiting) {
      this.gaps.push(gap);
    } else if (gap.epoch !== this.epoch) {
      if (this.past.includes(gap.epoch)) return this.events.overflow();
      this.enter(gap.epoch, gap.to + 1);
      this.events.lost(gap);
      this.drain();
    } else if (gap.to >= this.next) {
      if (gap.from > this.next && lane === "stream" && !this.ephemeral) this.gaps.push(gap);
      else this.lose(gap, this.next, gap.to);
      this.drain();
    }
  }

  private hold(publication: Publication, epoch: number): void {
    let place = epoch === this.epoch && !this.waiting ? this.held : this.foreign.get(epoch);
    if (!place) this.foreign.set(epoch, (place = new Map()));
    place.set(publication.offset, publication);
    let count = this.held.size;
    for (const { size } of this.foreign.values()) count += size;
    if (count > HOLD_CAPACITY) {
      this.drop();
      this.events.overflow();
    }
  }

  private drop(): void {
    this.held.clear();
    this.foreign.clear();
    this.gaps = [];
  }

  /** Leaves the epoch for another one. */
  private enter(epoch: number, next: number): void {
    if (this.epoch !== undefined) this.past = [...this.past, this.epoch].slice(-PAST_EPOCHS);
    this.past = this.past.filter((past) => past !== epoch);
    this.epoch = epoch;
    this.next = next;
    this.held.clear();
    this.gaps = [];
    this.claim(epoch);
  }

  /** What came early turns out to be of this epoch. */
  private claim(epoch: number): void {
    for (const key of [UNSAID, epoch]) this.foreign.get(key)?.forEach((publication, offset) => this.held.set(offset, publication));
    for (const key of [UNSAID, epoch, ...this.past]) this.foreign.delete(key);
  }

  private deliver(publication: Publication): void {
    this.next = publication.offset + 1;
    this.events.publication(publication);
  }

  private lose(gap: wire.Gap | undefined, from: number, to: number): void {
    this.skip(to + 1);
    this.events.lost({ channel: this.channel, epoch: gap?.epoch ?? this.epoch ?? 0, from, to });
  }

  private skip(next: number): void {
    this.next = next;
    for (const offset of this.held.keys()) if (offset < next) this.held.delete(offset);
  }

  /** Hands on what is next in line, and passes over what is lost. A listener may change everything meanwhile. */
  private drain(): void {
    while (!this.waiting) {
      const publication = this.held.get(this.next);
      const gap = this.gaps.find(({ from, to }) => from <= this.next && to >= this.next);
      if (publication) {
        this.held.delete(this.next);
        this.deliver(publication);
      } else if (gap) {
        this.lose(gap, this.next, gap.to);
      } else if (this.ephemeral && this.held.size > 0) {
        this.skip(Math.min(...this.held.keys()));
      } else break;
    }
    this.gaps = this.gaps.filter(({ to }) => to >= this.next);
    for (const offset of this.held.keys()) if (offset < this.next && !this.waiting) this.held.delete(offset);
  }
}
