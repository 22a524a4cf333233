import type { Client } from "@xpush/client";
import type { Platform } from "@xpush/client/platform";
import type { Contacts } from "./contacts.js";
import type { Conversations } from "./conversations.js";
import type { Presences } from "./presences.js";
import type { Profiles } from "./profiles.js";

/** What the messenger's views share: one user, signed in, and what is known for it. */
export interface Desk {
  readonly me: string;
  readonly platform: Platform;
  readonly client: Client;
  readonly profiles: Profiles;
  readonly presences: Presences;
  readonly contacts: Contacts;
  readonly conversations: Conversations;
}
