const decoder = new TextDecoder();

/** Deeper than any frame the server sends: it refuses data nested deeper than 64. */
const MAX_DEPTH = 100;

/** Reads one MessagePack value. 64-bit integers become numbers: offsets and times stay below 2^53. */
export class MsgpackReader {
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The value. Throws where bytes are missing, left over or no MessagePack. */
  read(): unknown {
    const value = this.value(0);
    if (this.at !== this.bytes.length) throw new SyntaxError("bytes follow the MessagePack value");
    return value;
  }

  private value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new SyntaxError("MessagePack nested too deep");
    const code = this.view.getUint8(this.take(1));
    if (code < 0x80) return code;
    if (code < 0x90) return this.map(code & 0x0f, depth);
    if (code < 0xa0) return this.array(code & 0x0f, depth);
    if (code < 0xc0) return this.text(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.raw(this.unsigned(1 << (code - 0xc4))).slice();
      case 0xca:
        return this.view.getFloat32(this.take(4));
      case 0xcb:
        return this.view.getFloat64(this.take(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.unsigned(1 << (code - 0xcc));
      case 0xd0:
        return this.view.getInt8(this.take(1));
      case 0xd1:
        return this.view.getInt16(this.take(2));
      case 0xd2:
        return this.view.getInt32(this.take(4));
      case 0xd3:
        return this.view.getInt32(this.take(4)) * 0x100000000 + this.view.getUint32(this.take(4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.text(this.unsigned(1 << (code - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.array(this.unsigned(2 << (code - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.map(this.unsigned(2 << (code - 0xde)), depth);
      default:
        throw new SyntaxError(`0x${code.toString(16)} is no MessagePack that we know`);
    }
  }

  private unsigned(size: number): number {
    const at = this.take(size);
    if (size === 1) return this.view.getUint8(at);
    if (size === 2) return this.view.getUint16(at);
    if (size === 4) return this.view.getUint32(at);
    return this.view.getUint32(at) * 0x100000000 + this.view.getUint32(at + 4);
  }

  private map(length: number, depth: number): Record<string, unknown> {
    const map: Record<string, unknown> = {};
    for (let i = 0; i < length; i++) {
      const key = String(this.value(depth + 1));
      const value = this.value(depth + 1);
      // As JSON.parse does it: a key of this name is a field like any other, not the object's prototype.
      if (key === "__proto__") {
        Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true });
      } else map[key] = value;
    }
    return map;
  }

  private array(length: number, depth: number): unknown[] {
    const array: unknown[] = [];
    for (let i = 0; i < length; i++) array.push(this.value(depth + 1));
    return array;
  }

  private text(length: number): string {
    return decoder.decode(this.raw(length));
  }

  private raw(length: number): Uint8Array {
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }

  private take(size: number): number {
    const at = this.at;
    if (at + size > this.bytes.length) throw new SyntaxError("the MessagePack value is cut off");
    this.at += size;
    return at;
  }
}
