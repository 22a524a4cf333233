import type { Codec, Encoded } from "../codec/codec.js";
import { defer } from "../defer.js";
import { FrameSplitter, joinFrames } from "../frame-splitter.js";
import type { Lane, Wire, WireEvents } from "./wire.js";

/** The longest frame taken from a server, in bytes: a page of history is the longest there is. */
const SERVER_FRAME_LIMIT = 64 * 1024 * 1024;

/** What fits a datagram on every path, where the browser does not say (RFC 9000, section 14). */
const SAFE_DATAGRAM = 1000;

/** `createWritable` replaced `writable` in the standard; browsers have one or the other. */
interface Datagrams {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable?: WritableStream<Uint8Array>;
  createWritable?(): WritableStream<Uint8Array>;
  readonly maxDatagramSize?: number;
}

/** One WebTransport session: a control stream of ours, the server's streams, and datagrams both ways. */
export class WebTransportWire implements Wire {
  private readonly session: WebTransport;
  private readonly encoder = new TextEncoder();
  private events: WireEvents | undefined;
  private control: WritableStreamDefaultWriter<Uint8Array> | undefined;
  private datagrams: WritableStreamDefaultWriter<Uint8Array> | undefined;
  private datagramSize = SAFE_DATAGRAM;
  private waiting: Uint8Array[] = [];

  /** `hashes`: SHA-256 of the certificates to take where no authority signed them. */
  constructor(
    url: string,
    hashes: readonly Uint8Array<ArrayBuffer>[],
    private readonly codec: Codec,
    events: WireEvents,
  ) {
    this.events = events;
    this.session = new WebTransport(url, {
      congestionControl: "low-latency",
      ...(hashes.length > 0 && {
        serverCertificateHashes: hashes.map((value) => ({ algorithm: "sha-256", value })),
      }),
    });
    this.session.closed.then(
      ({ closeCode, reason }) =>
        this.end(closeCode && closeCode >= 4000 ? closeCode : undefined, reason || "the session ended"),
      (error: unknown) => this.end(undefined, String(error)),
    );
    this.open().catch((error: unknown) => this.end(undefined, String(error)));
  }

  send(frame: Encoded): void {
    // All frames of one turn leave in one write.
    if (this.waiting.push(this.bytes(frame)) === 1) defer(() => this.flush());
  }

  sendLossy(frame: Encoded): void {
    const datagram = joinFrames([this.bytes(frame)]);
    if (!this.datagrams || datagram.length > this.datagramSize) return this.send(frame);
    this.datagrams.write(datagram).catch(() => {});
  }

  close(closeCode: number, reason: string): void {
    this.events = undefined;
    try {
      this.session.close({ closeCode, reason });
    } catch {
      // It is closed already, or was never up.
    }
  }

  private async open(): Promise<void> {
    await this.session.ready;
    const stream = await this.session.createBidirectionalStream();
    this.control = stream.writable.getWriter() as WritableStreamDefaultWriter<Uint8Array>;
    const datagrams = this.session.datagrams as unknown as Datagrams;
    this.datagrams = (datagrams.createWritable?.() ?? datagrams.writable)?.getWriter();
    this.datagramSize = datagrams.maxDatagramSize ?? SAFE_DATAGRAM;
    this.readDatagrams(datagrams.readable).catch(() => {});
    this.readStreams().catch(() => {});
    this.read(stream.readable as ReadableStream<Uint8Array>).then(
      // Its end is the connection's: give `closed`, which knows code and reason, one turn to come first.
      () => setTimeout(() => this.end(undefined, "the control stream ended")),
      (error: unknown) => setTimeout(() => this.end(undefined, String(error))),
    );
    this.events?.open();
  }

  private async readStreams(): Promise<void> {
    const streams = (this.session.incomingUnidirectionalStreams as ReadableStream<ReadableStream<Uint8Array>>).getReader();
    for (;;) {
      const { value, done } = await streams.read();
      if (done) return;
      // A stream that ends or is reset takes only itself along; what it carried is asked for again.
      this.read(value).catch(() => {});
    }
  }

  private async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const splitter = new FrameSplitter(SERVER_FRAME_LIMIT);
    const reader = stream.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (!this.take(splitter, value, "stream")) return;
    }
  }

  private async readDatagrams(datagrams: ReadableStream<Uint8Array>): Promise<void> {
    const reader = datagrams.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.take(new FrameSplitter(SERVER_FRAME_LIMIT), value, "datagram");
    }
  }

  /** Hands on the frames that `chunk` completes. False: the wire is over. */
  private take(splitter: FrameSplitter, chunk: Uint8Array, lane: Lane): boolean {
    try {
      for (const bytes of splitter.push(chunk)) this.events?.frame(this.codec.decode(bytes), lane);
    } catch (error) {
      const events = this.events;
      this.close(4500, "not a frame");
      events?.close({ reason: `the server sent what is no frame: ${String(error)}` });
    }
    return this.events !== undefined;
  }

  private flush(): void {
    const frames = this.waiting;
    this.waiting = [];
    this.control?.write(joinFrames(frames)).catch((error: unknown) => this.end(undefined, String(error)));
  }

  private bytes(frame: Encoded): Uint8Array {
    return typeof frame === "string" ? this.encoder.encode(frame) : frame;
  }

  private end(code: number | undefined, reason: string): void {
    const events = this.events;
    if (!events) return;
    this.close(4000, "");
    events.close(code === undefined ? { reason } : { code, reason });
  }
}
