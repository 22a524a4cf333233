/** What every error of this library is. `code` tells them apart; `message` is for a person. */
export class XpushError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = "XpushError";
    this.code = code;
  }
}
