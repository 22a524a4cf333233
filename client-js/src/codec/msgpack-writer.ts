const encoder = new TextEncoder();

/** Writes what JSON can say, and bytes, as MessagePack, in the shortest form of each value. */
export class MsgpackWriter {
  private bytes = new Uint8Array(256);
  private view = new DataView(this.bytes.buffer);
  private at = 0;

  write(value: unknown): Uint8Array<ArrayBuffer> {
    this.at = 0;
    this.value(value);
    return this.bytes.slice(0, this.at);
  }

  private value(value: unknown): void {
    if (typeof value === "string") this.text(value);
    else if (typeof value === "number") this.number(value);
    else if (typeof value === "boolean") this.byte(value ? 0xc3 : 0xc2);
    else if (value instanceof Uint8Array) this.binary(value);
    else if (Array.isArray(value)) {
      this.head(value.length, 0x90, 16, 0xdc);
      for (const item of value) this.value(item);
    } else if (typeof value === "object" && value !== null) this.map(value);
    else if (value === undefined || value === null) this.byte(0xc0);
    else throw new TypeError(`a ${typeof value} can't be sent`);
  }

  private map(value: object): void {
    // Dates and the like say themselves how they look as JSON; undefined fields are absent, as in JSON.
    const json = (value as { toJSON?: unknown }).toJSON;
    if (typeof json === "function") return this.value(json.call(value));
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    this.head(entries.length, 0x80, 16, 0xde);
    for (const [key, item] of entries) {
      this.text(key);
      this.value(item);
    }
  }

  private number(value: number): void {
    if (!Number.isFinite(value)) return this.byte(0xc0);
    if (!Number.isSafeInteger(value)) {
      this.byte(0xcb);
      const at = this.room(8);
      this.view.setFloat64(at, value);
    } else if (value >= 0) {
      if (value < 0x80) this.byte(value);
      else if (value < 0x100) this.sized(0xcc, 1, value);
      else if (value < 0x10000) this.sized(0xcd, 2, value);
      else if (value < 0x100000000) this.sized(0xce, 4, value);
      else {
        this.sized(0xcf, 4, Math.floor(value / 0x100000000));
        const low = this.room(4);
        this.view.setUint32(low, value >>> 0);
      }
    } else if (value >= -0x20) this.byte(value & 0xff);
    else if (value >= -0x80) this.sized(0xd0, 1, value & 0xff);
    else if (value >= -0x8000) this.sized(0xd1, 2, value & 0xffff);
    else if (value >= -0x80000000) this.sized(0xd2, 4, value >>> 0);
    else {
      this.sized(0xd3, 4, Math.floor(value / 0x100000000) >>> 0);
      const low = this.room(4);
      this.view.setUint32(low, value >>> 0);
    }
  }

  private text(value: string): void {
    const bytes = encoder.encode(value);
    if (bytes.length < 32) this.byte(0xa0 | bytes.length);
    else if (bytes.length < 0x100) this.sized(0xd9, 1, bytes.length);
    else this.head(bytes.length, 0, 0, 0xda);
    this.raw(bytes);
  }

  private binary(bytes: Uint8Array): void {
    if (bytes.length < 0x100) this.sized(0xc4, 1, bytes.length);
    else this.head(bytes.length, 0, 0, 0xc5);
    this.raw(bytes);
  }

  /** A length: within the first byte if below `tiny`, else behind `wide` (16 bits) or the next code (32 bits). */
  private head(length: number, small: number, tiny: number, wide: number): void {
    if (length < tiny) this.byte(small | length);
    else if (length < 0x10000) this.sized(wide, 2, length);
    else this.sized(wide + 1, 4, length);
  }

  private sized(code: number, size: 1 | 2 | 4, value: number): void {
    this.byte(code);
    const at = this.room(size);
    if (size === 1) this.view.setUint8(at, value);
    else if (size === 2) this.view.setUint16(at, value);
    else this.view.setUint32(at, value);
  }

  private byte(value: number): void {
    const at = this.room(1);
    this.bytes[at] = value;
  }

  private raw(bytes: Uint8Array): void {
    const at = this.room(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Makes room for `size` bytes and tells where they go. */
  private room(size: number): number {
    const at = this.at;
    this.at += size;
    if (this.at > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.at, this.bytes.length * 2));
      grown.set(this.bytes);
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    return at;
  }
}
