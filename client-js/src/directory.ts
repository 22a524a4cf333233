import { fromBase64 } from "./base64.js";
import { request } from "./http.js";
import type * as wire from "./wire.js";
import { WIRE_KINDS, type WireKind } from "./wires/wire.js";

/** Milliseconds the server has to tell its wires; then those that every server has are tried. */
const TIMEOUT = 4_000;

/** One wire and where it is. */
export interface Address {
  readonly kind: WireKind;
  readonly url: string;
  /** Certificates that WebTransport takes though no authority signed them. */
  readonly hashes: readonly Uint8Array<ArrayBuffer>[];
}

/** Asks a server which wires it has. */
export class Directory {
  private known: Address[] | undefined;

  /** `base`: the server's URL, without `/v1/…`. */
  constructor(private readonly base: string) {}

  /** The wires, best first. `fresh`: ask again; certificates change and nodes move. */
  async addresses(fresh: boolean): Promise<readonly Address[]> {
    if (this.known && !fresh) return this.known;
    try {
      const { status, body } = await request(`${this.base}/v1/transports`, undefined, TIMEOUT).answer;
      if (status === 200) return (this.known = read(JSON.parse(body) as wire.Transports));
    } catch {
      // What was known still holds, most likely; otherwise the wires that every server has where it serves HTTP.
    }
    return this.known ?? this.usual();
  }

  private usual(): Address[] {
    return [
      { kind: "websocket", url: `${this.base.replace(/^http/, "ws")}/v1/connect`, hashes: [] },
      { kind: "longpoll", url: `${this.base}/v1/poll`, hashes: [] },
    ];
  }
}

function read(document: wire.Transports): Address[] {
  const hashes = document.certificate_hashes.map(fromBase64);
  const addresses: Address[] = [];
  for (const { kind, url } of document.transports) {
    const known = WIRE_KINDS.find((candidate) => candidate === kind);
    if (known) addresses.push({ kind: known, url, hashes });
  }
  return addresses;
}
