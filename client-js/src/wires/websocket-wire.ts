import type { Codec, Encoded } from "../codec/codec.js";
import type { Wire, WireEvents } from "./wire.js";

/** One WebSocket: one message a frame, text or bytes by its subprotocol. */
export class WebSocketWire implements Wire {
  private readonly socket: WebSocket;
  private events: WireEvents | undefined;

  constructor(url: string, codec: Codec, events: WireEvents, WebSocketClass: typeof WebSocket) {
    this.events = events;
    this.socket = new WebSocketClass(url, [codec.subprotocol]);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.events?.open();
    this.socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      const events = this.events;
      if (!events) return;
      try {
        events.frame(codec.decode(typeof data === "string" ? data : new Uint8Array(data)), "ordered");
      } catch (error) {
        this.close(4500, "not a frame");
        events.close({ reason: `the server sent what is no frame: ${String(error)}` });
      }
    };
    this.socket.onclose = ({ code, reason }) => {
      const events = this.events;
      this.events = undefined;
      // 1006 and its like are the browser's own words for a wire that broke.
      events?.close(code >= 4000 ? { code, reason } : { reason: reason || `the WebSocket closed with ${code}` });
    };
    // The `close` that follows says as much: a page is told no details.
    this.socket.onerror = () => {};
  }

  send(frame: Encoded): void {
    // A closing socket throws nothing and takes nothing; `onclose` is on its way.
    this.socket.send(frame);
  }

  sendLossy(frame: Encoded): void {
    this.send(frame);
  }

  close(code: number, reason: string): void {
    this.events = undefined;
    this.socket.close(code, reason);
  }
}
