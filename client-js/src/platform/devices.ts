import { part, type Api } from "./api.js";
import type { Device, DeviceInput, Page, PageOptions, Patch } from "./types.js";

/** The devices of who is signed in. */
export class Devices {
  constructor(
    private readonly api: Api,
    private readonly user: () => string,
  ) {}

  list(options: PageOptions = {}): Promise<Page<Device>> {
    return this.api.get(this.path(), { ...options });
  }

  register(device: DeviceInput): Promise<Device> {
    return this.api.post(this.path(), device);
  }

  update(device: string, changes: Patch<Omit<DeviceInput, "device">>): Promise<Device> {
    return this.api.patch(`${this.path()}/${part(device)}`, changes);
  }

  /** Ends its logins and its sessions, wherever they are. */
  revoke(device: string): Promise<void> {
    return this.api.delete(`${this.path()}/${part(device)}`);
  }

  private path(): string {
    return `users/${part(this.user())}/devices`;
  }
}
