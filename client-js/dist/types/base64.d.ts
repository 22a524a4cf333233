/** RFC 4648, section 4. */
export declare function toBase64(bytes: Uint8Array): string;
export declare function fromBase64(text: string): Uint8Array<ArrayBuffer>;
/** 128 random bits in base64url. */
export declare function randomId(): string;
