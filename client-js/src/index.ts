export { Channel } from "./channel.js";
export type { ChannelEvents, HistoryOptions, PublishOptions, SubscribeOptions } from "./channel.js";
export { Client } from "./client.js";
export type { ClientEvents } from "./client.js";
export type { Codec, CodecName, Encoded } from "./codec/codec.js";
export type { ClientState, WireChoice } from "./connector.js";
export type { Address } from "./directory.js";
export { Emitter } from "./emitter.js";
export type { Listener } from "./emitter.js";
export { ClosedError } from "./errors/closed-error.js";
export { CommandError } from "./errors/command-error.js";
export { QueueFullError } from "./errors/queue-full-error.js";
export { WireError } from "./errors/wire-error.js";
export { XpushError } from "./errors/xpush-error.js";
export type { HistoryPage, Message, PresenceList, Publication } from "./message.js";
export type { ClientOptions, WireFactory } from "./options.js";
export type {
  ChannelSignal,
  Cursor,
  ErrorCode,
  Gap,
  Join,
  Lag,
  Leave,
  Member,
  Occupancy,
  Receipt,
  Subscribed,
  Target,
  Unsubscribed,
} from "./wire.js";
export type { Lane, Wire, WireEnd, WireEvents, WireKind } from "./wires/wire.js";
