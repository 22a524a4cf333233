import { type Api } from "./api.js";
import type { Device, DeviceInput, Page, PageOptions, Patch } from "./types.js";
/** The devices of who is signed in. */
export declare class Devices {
    private readonly api;
    private readonly user;
    constructor(api: Api, user: () => string);
    list(options?: PageOptions): Promise<Page<Device>>;
    register(device: DeviceInput): Promise<Device>;
    update(device: string, changes: Patch<Omit<DeviceInput, "device">>): Promise<Device>;
    /** Ends its logins and its sessions, wherever they are. */
    revoke(device: string): Promise<void>;
    private path;
}
