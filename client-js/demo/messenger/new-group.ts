import { byId, make, reason } from "../dom.js";
import type { Desk } from "./desk.js";
import { openDialog } from "./dialogs.js";

/** The dialog that makes a group. */
export class NewGroup {
  constructor(
    private readonly desk: Desk,
    private readonly made: (channel: string) => Promise<void>,
  ) {
    byId("new-group").addEventListener("click", () => this.open());
    byId("group-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.create();
    });
  }

  private open(): void {
    byId<HTMLInputElement>("group-title").value = "";
    this.problem("");
    const people = byId("group-people");
    const friends = this.desk.contacts.in("friends");
    people.replaceChildren(
      make("legend", "", "Who is in it?"),
      ...friends.map(({ user }) => {
        const label = make("label", "check");
        const box = make("input");
        box.type = "checkbox";
        box.value = user;
        label.append(box, make("span", "", this.desk.profiles.nameOf(user)));
        return label;
      }),
    );
    if (friends.length === 0) people.append(make("p", "soft", "Your friends will be here once you have some."));
    openDialog("group-dialog");
    byId("group-title").focus();
  }

  private async create(): Promise<void> {
    const title = byId<HTMLInputElement>("group-title").value.trim();
    if (!title) return;
    const boxes = byId("group-people").querySelectorAll<HTMLInputElement>("input:checked");
    const members = [...boxes].map(({ value }) => value);
    try {
      const { channel } = await this.desk.platform.channels.create({ title, members });
      byId<HTMLDialogElement>("group-dialog").close();
      await this.made(channel);
    } catch (error) {
      this.problem(reason(error));
    }
  }

  private problem(text: string): void {
    byId("group-problem").textContent = text;
    byId("group-problem").hidden = !text;
  }
}
