import { fromBase64 } from "./base64.js";
import { CommandError } from "./errors/command-error.js";
import { problem, request, type HttpAnswer } from "./http.js";
import type * as wire from "./wire.js";
import { WIRE_KINDS, type WireKind } from "./wires/wire.js";

/** Milliseconds a server has to answer; then the wires that are known, or that every server has, are tried. */
const TIMEOUT = 4_000;

/** Milliseconds after which another server is asked beside one that has not answered: it may be dead, or just far. */
export const PATIENCE = 1_000;

/** Servers that are remembered, to be asked when others are gone. */
const BASES = 16;

/** One wire and where it is. */
export interface Address {
  readonly kind: WireKind;
  readonly url: string;
  /** Certificates that WebTransport takes though no authority signed them. */
  readonly hashes: readonly Uint8Array<ArrayBuffer>[];
}

/** Asks the servers which node to use, over which wires, and for the ticket to it. */
export class Directory {
  private known: readonly Address[] | undefined;
  /** The one that answered last comes first. */
  private bases: readonly string[];
  /** Those that give no tickets, and only tell their own wires. */
  private readonly plain = new Set<string>();
  /** A node that was lost or can't be had: it may be dead, and the servers not know yet. */
  avoid: string | undefined;
  /** The node that was named last. */
  named: string | undefined;
  private given: { readonly text: string; readonly until: number } | undefined;

  /** `base`: a server's URL, without `/v1/…`. `token`: the one in use. */
  constructor(
    private readonly base: string,
    private readonly token: () => string | undefined,
    private readonly random: () => number = Math.random,
  ) {
    this.bases = [base];
  }

  /** What stands for the token at the node whose addresses were given last. */
  get ticket(): string | undefined {
    return this.given && this.given.until > Date.now() ? this.given.text : undefined;
  }

  /** The ticket was refused: the token itself is shown next. False: there was none. */
  dropTicket(): boolean {
    const given = this.given !== undefined;
    this.given = undefined;
    return given;
  }

  /** The wires, best first. `fresh`: ask again; nodes come and go. Rejects with what a server has against the token. */
  async addresses(fresh: boolean): Promise<readonly Address[]> {
    if (!this.known || fresh) this.known = (await this.ask()) ?? this.known;
    return this.known ?? this.usual();
  }

  /** Asks one server after the other, without waiting long for those before. `undefined`: nobody answered. */
  private ask(): Promise<Address[] | undefined> {
    const left = [...this.bases];
    let open = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    return new Promise((resolve) => {
      const next = (index = Math.floor(this.random() * left.length)): void => {
        clearTimeout(timer);
        const [base] = left.splice(index, 1);
        if (base !== undefined) {
          open++;
          timer = setTimeout(next, PATIENCE);
          this.askOne(base).then(
            (adopt) => {
              // Not if a faster one was heard already.
              if (open > 0) resolve(Promise.resolve().then(adopt));
              left.length = open = 0;
              clearTimeout(timer);
            },
            () => {
              if (open === 0) return;
              open--;
              next();
            },
          );
        } else if (open === 0) resolve(undefined);
      };
      next(0);
    });
  }

  /** Gives what is to be taken over if this server's answer is the one that counts. Rejects: it is of no use now. */
  private async askOne(base: string): Promise<() => Address[]> {
    if (!this.plain.has(base)) {
      const asked = JSON.stringify({ token: this.token(), avoid: this.avoid });
      const { status, body } = await answer(`${base}/v1/tickets`, asked);
      if (status === 200) {
        const ticket = JSON.parse(body) as wire.Ticket;
        return this.answered(base, ticket.wires, ticket);
      }
      if (status !== 404 && status !== 405) {
        const error = problem(body);
        return () => {
          this.given = undefined;
          throw new CommandError(error);
        };
      }
      this.plain.add(base);
    }
    const { body } = await answer(`${base}/v1/transports`);
    return this.answered(base, JSON.parse(body) as wire.Transports);
  }

  private answered(base: string, document: wire.Transports, ticket?: wire.Ticket): () => Address[] {
    const addresses = read(document);
    return () => {
      this.given = ticket && { text: ticket.ticket, until: Date.now() + ticket.expires_in * 1000 };
      this.named = document.node;
      this.bases = [...new Set([base, this.base, ...(ticket?.nodes ?? this.bases)])].slice(0, BASES);
      return addresses;
    };
  }

  private usual(): Address[] {
    return [
      { kind: "websocket", url: `${this.base.replace(/^http/, "ws")}/v1/connect`, hashes: [] },
      { kind: "longpoll", url: `${this.base}/v1/poll`, hashes: [] },
    ];
  }
}

/** What the server answered, unless it has troubles of its own. */
async function answer(url: string, body?: string): Promise<HttpAnswer> {
  const answer = await request(url, body, TIMEOUT).answer;
  if (answer.status >= 500) throw new Error(answer.body);
  return answer;
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
