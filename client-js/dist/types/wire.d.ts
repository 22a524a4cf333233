/**
 * A frame from a client.
 */
export type ClientFrame = {
    "connect": Connect;
} | {
    "subscribe": Subscribe;
} | {
    "unsubscribe": Unsubscribe;
} | {
    "publish": Publish;
} | {
    "send": Send;
} | {
    "signal": Signal;
} | {
    "read": Read;
} | {
    "received": Received;
} | {
    "history": History;
} | {
    "presence": Presence;
} | {
    "refresh": Refresh;
} | {
    "delete": Delete;
} | {
    "ping": Ping;
};
/**
 * The first frame of every connection. Answered by `connected`, then by one `subscribed` (or `error`) for each
 * of `subscriptions`, with this frame's `id`.
 */
export type Connect = {
    id: number;
    /**
     * Who this is and what it may do. Absent: anonymous, where the server allows it.
     */
    token?: string;
    /**
     * What `POST /v1/tickets` gave, in the place of the token that it was given for.
     */
    ticket?: string;
    /**
     * What the last `connected` gave: the same session goes on.
     */
    state?: string;
    /**
     * The resume vector: every channel with the cursor behind the last publication that was taken.
     */
    subscriptions?: Array<Resubscribe>;
    /**
     * Take the state's identity, but none of its subscriptions: a connection that only sends, beside the
     * session's own.
     */
    detached?: boolean;
    /**
     * The client's name and version, for the operator's logs.
     */
    agent?: string;
};
/**
 * One entry of a resume vector.
 */
export type Resubscribe = {
    channel: string;
    /**
     * Absent: from now on.
     */
    cursor?: Cursor;
};
/**
 * Answered by `subscribed`.
 */
export type Subscribe = {
    id: number;
    channel: string;
    /**
     * Resume behind this place.
     */
    cursor?: Cursor;
    /**
     * Without a cursor: begin with the last this many publications.
     */
    last?: number;
};
/**
 * Answered by `unsubscribed`.
 */
export type Unsubscribe = {
    id: number;
    channel: string;
};
/**
 * Answered by `published` once the publication is as durable as its namespace promises.
 */
export type Publish = {
    /**
     * 0: no answer is wanted, unless it is an error.
     */
    id: number;
    channel: string;
    /**
     * The publisher's id of this message: sent again with the same one, it stands once in the log. Absent: a
     * retry may stand twice.
     */
    message_id?: string;
    event?: string;
    /**
     * The data, if it is JSON.
     */
    data?: unknown;
    /**
     * The data, if it is bytes.
     */
    binary?: string | Uint8Array;
    /**
     * The offset of the message in this channel that this one answers.
     */
    reply_to?: number;
    /**
     * Users whose inbox tells them of it: `MAX_MENTIONS` at most. They are not kept with the message.
     */
    mentions?: Array<string>;
    /**
     * Milliseconds from now until the server deletes it.
     */
    expires_in?: number;
};
/**
 * A private message, to whoever is connected now. Answered by `sent`.
 */
export type Send = {
    id: number;
    to: Target;
    event?: string;
    data?: unknown;
    binary?: string | Uint8Array;
};
/**
 * Whom a private message is for.
 */
export type Target = {
    "session": string;
} | {
    "user": string;
} | {
    "device": UserDevice;
};
/**
 * A device of a user: another user may have one of the same name.
 */
export type UserDevice = {
    user: string;
    device: string;
};
/**
 * Something that is of use now or not at all (typing, a position), to everybody who is in the channel: it is in no log
 * and has no offset. Answered by `done`.
 */
export type Signal = {
    /**
     * 0: no answer is wanted, unless it is an error.
     */
    id: number;
    channel: string;
    event: string;
    data?: unknown;
};
/**
 * The user has read the channel up to this offset, on whichever device. It never goes back. Answered by `done`.
 */
export type Read = {
    /**
     * 0: no answer is wanted, unless it is an error.
     */
    id: number;
    channel: string;
    offset: number;
};
/**
 * This device has the channel up to this offset. It never goes back. Answered by `done`.
 */
export type Received = {
    /**
     * 0: no answer is wanted, unless it is an error.
     */
    id: number;
    channel: string;
    offset: number;
};
/**
 * Deletes a message: its own author may, and who looks after the channel. Answered by `done` once it is gone from the
 * log; who has it is told by a publication of the event `xpush.deleted`.
 */
export type Delete = {
    id: number;
    channel: string;
    offset: number;
};
/**
 * Answered by `history`: one page of a channel's log.
 */
export type History = {
    id: number;
    channel: string;
    /**
     * Forward: the page begins behind it. Backward: it ends before it. Absent: at the oldest, or at the newest.
     */
    cursor?: Cursor;
    /**
     * Newest first.
     */
    backward?: boolean;
    /**
     * 1 to 256; absent: 50.
     */
    limit?: number;
};
/**
 * Answered by `presence`: who is in a channel.
 */
export type Presence = {
    id: number;
    channel: string;
};
/**
 * A new token for a live session, of the same user. Answered by `refreshed`; what the new token no longer
 * grants ends at once.
 */
export type Refresh = {
    id: number;
    token: string;
};
/**
 * Answered by `pong`: the wire is alive, and this long.
 */
export type Ping = {
    id: number;
};
/**
 * A frame from a server.
 */
export type ServerFrame = {
    "connected": Connected;
} | {
    "subscribed": Subscribed;
} | {
    "unsubscribed": Unsubscribed;
} | {
    "published": Published;
} | {
    "sent": Sent;
} | {
    "history": HistoryPage;
} | {
    "presence": PresenceList;
} | {
    "refreshed": Refreshed;
} | {
    "pong": Pong;
} | {
    "done": Done;
} | {
    "error": Error;
} | {
    "publication": Publication;
} | {
    "message": Message;
} | {
    "signal": ChannelSignal;
} | {
    "receipt": Receipt;
} | {
    "join": Join;
} | {
    "leave": Leave;
} | {
    "occupancy": Occupancy;
} | {
    "gap": Gap;
} | {
    "lag": Lag;
} | {
    "draining": Draining;
} | {
    "expired": Expired;
} | {
    "close": Close;
};
/**
 * The session is live.
 */
export type Connected = {
    id: number;
    /**
     * The session's address for private messages. The same as before if `state` was taken.
     */
    session: string;
    /**
     * Opaque and secret: who brings it back in `connect` goes on with this session, on any node.
     */
    state: string;
    user?: string;
    /**
     * The node that holds the connection.
     */
    node: string;
    /**
     * Seconds until the token expires. Absent: it doesn't.
     */
    expires_in?: number;
    /**
     * A client sends some frame, `ping` if nothing else, at least this often (milliseconds); a wire that is
     * silent for three times as long is closed.
     */
    ping_interval: number;
    limits: Limits;
};
/**
 * What the server takes from one client.
 */
export type Limits = {
    /**
     * The largest frame, in bytes.
     */
    frame: number;
    /**
     * Commands that may wait for their answer at once; the server reads no further until one is answered.
     */
    in_flight: number;
    /**
     * Channels that a session may be subscribed to.
     */
    subscriptions: number;
};
/**
 * The subscription is live from `cursor` on: the first publication that follows has `cursor.offset + 1`.
 */
export type Subscribed = {
    id: number;
    channel: string;
    cursor: Cursor;
    /**
     * The offset of the channel's newest publication: above `cursor.offset`, there is something to catch up.
     */
    top: number;
    /**
     * What can't be had any more between the cursor that was asked for and `cursor`.
     */
    gap?: Gap;
    /**
     * The namespace keeps nothing (retention `none`): a publication may be lost or overtaken on the way, and a hole
     * in the offsets is not waited for.
     */
    ephemeral?: boolean;
    /**
     * Sessions in the channel, this one included. Absent: the namespace has no presence, or the token does not
     * grant it.
     */
    occupancy?: number;
};
/**
 * The subscription ended: as the answer to `unsubscribe`, or by itself and then with no `id`.
 */
export type Unsubscribed = {
    id?: number;
    channel: string;
    reason: UnsubscribeReason;
};
/**
 * Why a subscription ended.
 */
export type UnsubscribeReason = "requested" | "token_expired" | "revoked" | "log_unavailable";
/**
 * The publication is in the log at `cursor`.
 */
export type Published = {
    id: number;
    cursor: Cursor;
    /**
     * The message id was there already; `cursor` is the first one's.
     */
    duplicate?: boolean;
};
/**
 * The private message was handed to this many sessions.
 */
export type Sent = {
    id: number;
    sessions: number;
};
/**
 * One page of a channel's log.
 */
export type HistoryPage = {
    id: number;
    channel: string;
    /**
     * In the order that was asked for.
     */
    publications: Array<Publication>;
    /**
     * The channel's newest.
     */
    top: Cursor;
    /**
     * Ask on from here for the next page in the same direction. Absent: this was the last.
     */
    next?: Cursor;
    /**
     * What was asked for and is no longer there.
     */
    gap?: Gap;
};
/**
 * Who is in a channel.
 */
export type PresenceList = {
    id: number;
    channel: string;
    /**
     * At most 1,000; `sessions` and `users` count all.
     */
    members: Array<Member>;
    sessions: number;
    users: number;
};
/**
 * One session in a channel.
 */
export type Member = {
    session: string;
    user?: string;
};
/**
 * The session goes on under the new token.
 */
export type Refreshed = {
    id: number;
    expires_in?: number;
};
export type Pong = {
    id: number;
};
/**
 * The command is done.
 */
export type Done = {
    id: number;
};
/**
 * A command failed. The session goes on.
 */
export type Error = {
    /**
     * The command's. Absent: the frame was not understood far enough to have one.
     */
    id?: number;
    code: ErrorCode;
    /**
     * For a person: what happened, and what to do.
     */
    message: string;
    channel?: string;
    /**
     * The same command may succeed later.
     */
    retry: boolean;
    /**
     * Milliseconds to wait first.
     */
    retry_after?: number;
};
/**
 * Why a command failed. On the wire it is its name.
 */
export type ErrorCode = "malformed" | "unknown_command" | "invalid_field" | "invalid_name" | "too_deep" | "too_large" | "out_of_order" | "unauthenticated" | "invalid_token" | "token_expired" | "invalid_state" | "permission_denied" | "unknown_namespace" | "not_supported" | "cursor_ahead" | "already_subscribed" | "not_subscribed" | "limit_reached" | "rate_limited" | "busy" | "not_connected" | "no_node" | "not_found" | "already_exists" | "precondition_failed" | "invalid_credentials" | "refused" | "directory_unavailable" | "log_unavailable" | "internal";
/**
 * A message, in its place in the channel.
 */
export type Publication = {
    channel: string;
    offset: number;
    /**
     * Which numbering `offset` is of. Absent: the one that the subscription began with (`subscribed.cursor`), or, on
     * a page of history, the page's (`top`). A server says it once the channel's epoch changed under somebody who
     * listens: on a wire of several streams a publication of the new epoch may overtake the `gap` that announces it,
     * and one of the old epoch may come behind it.
     */
    epoch?: Epoch;
    /**
     * The publisher's id of it.
     */
    message_id: string;
    event: string;
    data?: unknown;
    binary?: string | Uint8Array;
    /**
     * The user who published it. Absent: anonymous, or a backend.
     */
    user?: string;
    /**
     * When the server took it: milliseconds since 1970.
     */
    time: number;
    /**
     * The offset of the message in this channel that this one answers.
     */
    reply_to?: number;
};
/**
 * A private message.
 */
export type Message = {
    /**
     * The sender's session: an answer goes there. Absent: a backend.
     */
    session?: string;
    user?: string;
    event: string;
    data?: unknown;
    binary?: string | Uint8Array;
};
/**
 * Somebody's `signal` in the channel.
 */
export type ChannelSignal = {
    channel: string;
    event: string;
    data?: unknown;
    /**
     * The sender's session.
     */
    session: string;
    user?: string;
};
/**
 * How far a member has come: up to here it has read, or one of its devices has received. A later one never says less.
 */
export type Receipt = {
    channel: string;
    user: string;
    read?: number;
    received?: number;
};
/**
 * A session came into the channel.
 */
export type Join = {
    channel: string;
    member: Member;
    /**
     * Sessions in the channel now.
     */
    occupancy: number;
};
/**
 * A session left the channel, or has not been heard of for its lease.
 */
export type Leave = {
    channel: string;
    member: Member;
    occupancy: number;
};
/**
 * In a channel too big for single `join` and `leave` events: the count, once a second while it changes.
 */
export type Occupancy = {
    channel: string;
    occupancy: number;
};
/**
 * The publications `from` to `to` (both included) of `epoch` can't be had any more. What follows begins at
 * `to + 1`. On a wire of several streams it may overtake publications before `from`: it counts once they are there.
 * If `epoch` is not the one of the client's cursor, it counts at once: what was behind that cursor in the old epoch is
 * lost as well, and `to` may be 0: nothing of the new epoch is.
 */
export type Gap = {
    channel: string;
    epoch: Epoch;
    from: number;
    to: number;
};
/**
 * The client reads more slowly than the channel speaks: from here on this subscription is read from the log as
 * fast as the client takes it. `behind: 0`: it is live again.
 */
export type Lag = {
    channel: string;
    behind: number;
};
/**
 * The node will leave: be live elsewhere (another connection, with the resume vector), then close this one.
 */
export type Draining = {
    /**
     * Milliseconds to wait before reconnecting: the node spreads its clients.
     */
    reconnect_in: number;
    /**
     * Milliseconds until the node closes the connection itself.
     */
    close_in: number;
};
/**
 * The token expired: the subscriptions have ended, and every command but `refresh` and `ping` is refused.
 */
export type Expired = Record<symbol, never>;
/**
 * The last frame of a connection that the server ends, on a wire that has no close of its own (long-polling). The
 * others carry the same code and reason in their own way.
 */
export type Close = {
    code: number;
    reason: string;
    /**
     * The client may connect again.
     */
    reconnect: boolean;
};
/**
 * One life of a channel's numbering. Offsets of two epochs can't be compared.
 */
export type Epoch = number;
/**
 * A place in a channel: behind the publication `offset` of `epoch`. Offsets begin at 1; 0 is before the first.
 */
export type Cursor = {
    epoch: Epoch;
    offset: number;
};
/**
 * The wires.
 */
export type TransportKind = "webtransport" | "quic" | "websocket" | "longpoll" | "memory";
/**
 * `GET /v1/transports`: what is there, best first.
 */
export type Transports = {
    version: string;
    node: string;
    transports: Array<Endpoint>;
    /**
     * SHA-256 of each certificate that the node may show, in base64; empty where a public authority signed it.
     * A browser takes them as `serverCertificateHashes`.
     */
    certificate_hashes: Array<string>;
};
/**
 * One wire's address.
 */
export type Endpoint = {
    kind: TransportKind;
    /**
     * `https:`, `quic:`, `ws:` or `wss:`, `http:` or `https:`.
     */
    url: string;
};
/**
 * `POST /v1/tickets`: which node to use.
 */
export type TicketRequest = {
    /**
     * As in `connect`. Absent: anonymous, where the server allows it.
     */
    token?: string;
    /**
     * A node that the client could not reach, or that just left it: another one is named, if there is one.
     */
    avoid?: string;
};
/**
 * A node to use, and the ticket to show there.
 */
export type Ticket = {
    /**
     * Stands in `connect` for the token that it was given for.
     */
    ticket: string;
    /**
     * Seconds.
     */
    expires_in: number;
    node: string;
    wires: Transports;
    /**
     * Where the next ticket can be had: base URLs, of the answering node first.
     */
    nodes: Array<string>;
};
/**
 * `GET /v1/nodes`: the nodes that live, for operators.
 */
export type NodeList = {
    nodes: Array<NodeEntry>;
};
/**
 * One node.
 */
export type NodeEntry = {
    id: string;
    version: string;
    /**
     * `session`, `channel`.
     */
    roles: Array<string>;
    weight: number;
    /**
     * Sessions that are connected.
     */
    sessions: number;
    /**
     * Channels with subscribers there.
     */
    channels: number;
    /**
     * Users of whom a session is there.
     */
    users: number;
    draining: boolean;
    /**
     * Where its HTTP API is.
     */
    url: string;
    wires: Transports;
};
/**
 * Why an HTTP request is refused: RFC 9457's problem details, with the fields of an `error` frame beside them.
 */
export type Problem = {
    /**
     * `about:blank`: the status says what kind it is, and `code` which exactly.
     */
    type: string;
    /**
     * The status in words.
     */
    title: string;
    status: number;
    /**
     * For a person: what happened, and what to do.
     */
    detail: string;
    code: ErrorCode;
    /**
     * The same request may succeed later.
     */
    retry: boolean;
    /**
     * Milliseconds to wait first.
     */
    retry_after?: number;
    channel?: string;
};
/**
 * `POST /v1/poll`.
 */
export type PollRequest = {
    /**
     * What the last answer gave. Absent: a new session, whose `connect` is the first of `frames`.
     */
    state?: string;
    /**
     * Client frames, in order.
     */
    frames?: Array<ClientFrame>;
    /**
     * Only hand the frames over, beside a poll that waits: the answer is empty and has no state, and what the
     * frames bring comes with that poll.
     */
    send?: boolean;
    /**
     * Seconds to wait where there is nothing to say, 25 at most and if absent.
     */
    wait?: number;
};
/**
 * The answer to a poll.
 */
export type PollAnswer = {
    /**
     * To be sent with the next poll, which confirms this answer. Absent: the session ended, or `send` was set.
     */
    state?: string;
    /**
     * Server frames, in order.
     */
    frames: Array<ServerFrame>;
};
