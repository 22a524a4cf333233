import { XpushError } from "./xpush-error.js";

const CODES: { readonly [closeCode: number]: string } = { 4504: "revoked", 4505: "signed_in_elsewhere" };

/**
 * The client is closed, by `close()` or because the server allows no return. `code` is `revoked` where the user, device
 * or login was taken back, `signed_in_elsewhere` where the app allows no second session; else `closed`.
 */
export class ClosedError extends XpushError {
  /** The close code of `docs/PROTOCOL.md`; 4000 for `close()`. */
  readonly closeCode: number;

  constructor(closeCode: number, reason: string) {
    super(CODES[closeCode] ?? "closed", `the client is closed: ${reason} (${closeCode})`);
    this.name = "ClosedError";
    this.closeCode = closeCode;
  }
}
