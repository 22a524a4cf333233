import type { Platform } from "@xpush/client/platform";
import { byId, mount, reason } from "./dom.js";
import { thisDevice } from "./device.js";
import type { View } from "./view.js";

/** The door: sign in, sign up, or go on as a guest. */
export class WelcomeView implements View {
  private isNew = false;

  /** `note`: why somebody who was inside stands here. */
  constructor(
    private readonly platform: Platform,
    note = "",
  ) {
    mount("welcome-view");
    document.title = "XPUSH Messenger";
    delete document.documentElement.dataset.state;
    byId("door-note").textContent = note;
    byId("door-note").hidden = !note;
    byId("door-swap").addEventListener("click", () => this.swap());
    byId("door").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.enter();
    });
  }

  route(): void {}

  close(): void {}

  private swap(): void {
    this.isNew = !this.isNew;
    byId("welcome").classList.toggle("new", this.isNew);
    byId("door-lead").textContent = this.isNew ? "A name and a password, and you are in." : "Sign in to go on where you were.";
    byId("door-enter").textContent = this.isNew ? "Create account" : "Sign in";
    byId("door-question").textContent = this.isNew ? "Been here before?" : "New here?";
    byId("door-swap").textContent = this.isNew ? "Sign in" : "Create an account";
    byId<HTMLInputElement>("door-password").autocomplete = this.isNew ? "new-password" : "current-password";
    this.problem("");
    byId("door-user").focus();
  }

  private async enter(): Promise<void> {
    const enter = byId<HTMLButtonElement>("door-enter");
    const user = byId<HTMLInputElement>("door-user").value.trim();
    const password = byId<HTMLInputElement>("door-password").value;
    const name = byId<HTMLInputElement>("door-name").value.trim();
    this.problem("");
    enter.disabled = true;
    enter.setAttribute("aria-busy", "true");
    try {
      if (this.isNew) await this.platform.register({ user, password, ...(name && { name }) }, thisDevice());
      else await this.platform.login({ user, password }, thisDevice());
    } catch (error) {
      this.problem(navigator.onLine ? reason(error) : "There is no network just now. Try again when it is back.");
      enter.disabled = false;
      enter.removeAttribute("aria-busy");
      byId("door-password").focus();
    }
  }

  private problem(text: string): void {
    byId("door-problem").textContent = text;
    byId("door-problem").hidden = !text;
  }
}
