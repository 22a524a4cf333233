import { byId } from "../dom.js";

/** Milliseconds between two signs of one's own typing. */
const EVERY = 2_000;

/** Unsent texts that are kept, of as many conversations. */
const DRAFTS = 50;

/** What a message answers. */
export interface Answered {
  readonly offset: number;
  readonly who: string;
  readonly text: string;
}

/** Where one writes; each conversation keeps its draft. */
export class Composer {
  private readonly form = byId<HTMLFormElement>("write");
  private readonly text = byId<HTMLTextAreaElement>("write-text");
  private readonly drafts = new Map<string, string>();
  private channel = "";
  private placeholder = "";
  private answered: Answered | undefined;
  private last = 0;

  constructor(
    private readonly send: (text: string, answered: Answered | undefined) => void,
    private readonly typing: () => void,
  ) {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.answered) {
        event.preventDefault();
        this.answer(undefined);
      }
      // Enter ends an input method's word before it ends a message.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    this.text.addEventListener("input", () => {
      this.fit();
      if (this.text.value.trim()) this.pressed();
    });
    byId("answering-cancel").addEventListener("click", () => {
      this.answer(undefined);
      this.text.focus();
    });
  }

  /** Another conversation. */
  open(channel: string, placeholder: string): void {
    const draft = this.text.value;
    this.drafts.delete(this.channel);
    if (draft.trim()) this.drafts.set(this.channel, draft);
    if (this.drafts.size > DRAFTS) this.drafts.delete(this.drafts.keys().next().value!);
    this.channel = channel;
    this.text.value = this.drafts.get(channel) ?? "";
    this.placeholder = placeholder;
    this.enable(undefined);
    this.last = 0;
    this.answer(undefined);
    this.fit();
    // On a phone, the keyboard would hide what is to be read.
    if (matchMedia("(hover: hover)").matches) this.text.focus();
  }

  /** `why`: nobody can write here, and this is why. */
  enable(why: string | undefined): void {
    this.text.disabled = why !== undefined;
    this.form.querySelector<HTMLButtonElement>(".send")!.disabled = why !== undefined;
    this.text.placeholder = why ?? this.placeholder;
  }

  hide(hidden: boolean): void {
    this.form.hidden = hidden;
  }

  /** The next message answers this one. */
  answer(answered: Answered | undefined): void {
    this.answered = answered;
    byId("answering").hidden = answered === undefined;
    byId("answering-who").textContent = answered?.who ?? "";
    byId("answering-text").textContent = answered?.text ?? "";
    if (answered) this.text.focus();
  }

  private submit(): void {
    const words = this.text.value.trim();
    if (!words || this.text.disabled) return;
    this.send(words, this.answered);
    this.text.value = "";
    this.last = 0;
    this.answer(undefined);
    this.fit();
    this.text.focus();
  }

  private pressed(): void {
    const now = Date.now();
    if (now - this.last < EVERY) return;
    this.last = now;
    this.typing();
  }

  private fit(): void {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }
}
