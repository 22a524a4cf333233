import type { Device } from "@xpush/client/platform";
import { byId, button, make, paint, reason } from "../dom.js";
import { toast } from "../toast.js";
import { wireSwitch } from "../wires.js";
import type { Desk } from "./desk.js";
import { confirmed, openDialog } from "./dialogs.js";
import { everyPage } from "./pages.js";
import { lastSeen } from "./words.js";

/** One's profile, devices, connection and account. */
export class Settings {
  private readonly name = byId<HTMLInputElement>("profile-name");
  private readonly status = byId<HTMLInputElement>("profile-status");

  constructor(private readonly desk: Desk) {
    byId("open-settings").addEventListener("click", () => void this.open());
    byId("profile").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.act(() => this.save());
    });
    wireSwitch(desk.client, byId("switch"), byId("wire-hint"));
    this.on("sign-out", () => desk.platform.logout());
    this.on("sign-out-all", async () => {
      if (await confirmed("Sign out on every device?", "Sign out")) await desk.platform.logout({ all: true });
    });
    this.on("export", () => this.export());
    this.on("delete-account", () => this.delete());
    desk.profiles.on("change", (user) => user === desk.me && this.self());
    this.self();
  }

  private self(): void {
    const { me, profiles } = this.desk;
    const name = profiles.nameOf(me);
    byId("self-name").textContent = name;
    byId("self-user").textContent = `@${me}`;
    paint(byId("self-avatar"), name, me);
  }

  private async open(): Promise<void> {
    openDialog("settings-dialog");
    await this.act(async () => {
      const profile = await this.desk.platform.me.profile();
      this.desk.profiles.learn(profile);
      this.name.value = profile.name ?? "";
      this.status.value = profile.status ?? "";
      await this.devices();
    });
  }

  private async save(): Promise<void> {
    const [name, status] = [this.name.value.trim(), this.status.value.trim()];
    this.desk.profiles.learn(await this.desk.platform.me.update({ name: name || null, status: status || null }));
    toast("Saved");
  }

  private async devices(): Promise<void> {
    const devices = await everyPage((page) => this.desk.platform.devices.list(page));
    byId("devices").replaceChildren(...devices.map((device) => this.device(device)));
  }

  private device(device: Device): HTMLLIElement {
    const name = device.name ?? device.device;
    const here = device.device === this.desk.platform.device;
    const text = make("span", "grow");
    text.append(make("b", "", name), make("span", "snippet", here ? "this device" : lastSeen(device.last_seen)));
    const item = make("li", "row person");
    item.dataset.device = device.device;
    item.append(text);
    if (!here) {
      const revoke = button("small plain danger", `Sign out ${name}`, "Sign out", () =>
        void this.act(async () => {
          if (!(await confirmed(`Sign out ${name}? It is thrown out at once.`, "Sign out"))) return;
          await this.desk.platform.devices.revoke(device.device);
          await this.devices();
        }),
      );
      item.append(revoke);
    }
    return item;
  }

  private async export(): Promise<void> {
    const all = JSON.stringify(await this.desk.platform.me.export(), null, 2);
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([all], { type: "application/json" }));
    link.download = `${this.desk.me}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 0);
  }

  private async delete(): Promise<void> {
    const { platform } = this.desk;
    if (!(await confirmed("Delete your account, with all that is yours? This can't be taken back.", "Delete for good"))) return;
    await platform.me.delete();
    await platform.logout();
  }

  private on(id: string, done: () => Promise<unknown>): void {
    byId(id).addEventListener("click", () => void this.act(done));
  }

  private async act(done: () => Promise<unknown>): Promise<void> {
    try {
      await done();
    } catch (error) {
      toast(reason(error));
    }
  }
}
