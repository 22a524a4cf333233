import type { Publication } from "./message.js";
import type * as wire from "./wire.js";
import type { Lane } from "./wires/wire.js";

/** Publications held while one before them is missing. Full: they are asked for again, from the log. */
export const HOLD_CAPACITY = 1024;

/** What comes out of a sequence. */
export interface SequenceEvents {
  /** The next publication, each once and in order. */
  publication(publication: Publication): void;
  /** These can't be had any more. */
  lost(gap: wire.Gap): void;
  /** Too much is held: subscribe again with the cursor. */
  overflow(): void;
}

/**
 * One channel's order, whatever the wire: several streams overtake each other, a resumed subscription repeats
 * what is known, a datagram gets lost. Old ones are dropped, what is ahead is held until the hole is filled.
 */
export class Sequence {
  private epoch: number | undefined;
  private next = 0;
  /** Between a (re)subscription and its answer, where it begins is not known yet. */
  private waiting = true;
  /** This channel keeps nothing, and the latest wins: the server said so, or a datagram came. */
  private ephemeral = false;
  private readonly held = new Map<number, Publication>();
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
    return !this.waiting && (this.held.size > 0 || this.gaps.length > 0);
  }

  /** A subscription is asked for; what comes before its answer is held. */
  suspend(): void {
    this.waiting = true;
    this.held.clear();
    this.gaps = [];
  }

  /** Forgets the place: the next subscription begins anew. */
  reset(): void {
    this.suspend();
    this.epoch = undefined;
    this.ephemeral = false;
  }

  /** The subscription's answer: it is live from `cursor` on. */
  start(cursor: wire.Cursor, gap: wire.Gap | undefined, ephemeral = false): void {
    this.ephemeral ||= ephemeral;
    const { epoch, offset } = cursor;
    this.waiting = false;
    if (this.epoch === epoch) {
      if (offset >= this.next) this.lose(gap, this.next, offset);
    } else {
      const known = this.epoch !== undefined;
      this.epoch = epoch;
      this.next = offset + 1;
      if (gap) this.events.lost(gap);
      else if (known) this.events.lost({ channel: this.channel, epoch, from: 1, to: offset });
    }
    for (const later of this.gaps.splice(0)) this.gap(later, "stream");
    this.drain();
  }

  /** A publication came. */
  take(publication: Publication, lane: Lane): void {
    if (lane === "datagram") this.ephemeral = true;
    const { offset } = publication;
    if (this.waiting) return this.hold(publication);
    if (offset < this.next) return;
    if (offset > this.next) {
      if (this.ephemeral) this.skip(offset);
      else if (lane === "ordered") this.lose(undefined, this.next, offset - 1);
      else return this.hold(publication);
    }
    this.deliver(publication);
    this.drain();
  }

  /** The server says what is lost. On a wire of several streams it may be early: what is before it still comes. */
  gap(gap: wire.Gap, lane: Lane): void {
    if (this.waiting) {
      this.gaps.push(gap);
    } else if (gap.epoch !== this.epoch) {
      // What is held may be of either epoch: if it is of the new one, the log has it.
      this.held.clear();
      this.gaps = [];
      this.epoch = gap.epoch;
      this.next = gap.to + 1;
      this.events.lost(gap);
    } else if (gap.to >= this.next) {
      if (gap.from > this.next && lane === "stream" && !this.ephemeral) this.gaps.push(gap);
      else this.lose(gap, this.next, gap.to);
      this.drain();
    }
  }

  private hold(publication: Publication): void {
    this.held.set(publication.offset, publication);
    if (this.held.size > HOLD_CAPACITY) {
      this.held.clear();
      this.events.overflow();
    }
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
