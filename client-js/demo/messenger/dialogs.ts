import { byId } from "../dom.js";

/** Opens one of the page's dialogs. Escape, a click beside it and its own buttons close it. */
export function openDialog(id: string): HTMLDialogElement {
  const dialog = byId<HTMLDialogElement>(id);
  if (dialog.dataset.ready === undefined) {
    dialog.dataset.ready = "";
    for (const closer of dialog.querySelectorAll("[data-close]")) closer.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  dialog.showModal();
  return dialog;
}

/** Asks before what can't be taken back. */
export function confirmed(question: string, yes: string): Promise<boolean> {
  byId("confirm-text").textContent = question;
  byId("confirm-yes").textContent = yes;
  const dialog = openDialog("confirm-dialog");
  const over = new AbortController();
  return new Promise((resolve) => {
    const answer = (value: boolean): void => {
      over.abort();
      resolve(value);
    };
    dialog.addEventListener("close", () => answer(false), { signal: over.signal });
    byId("confirm-form").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        answer(true);
        dialog.close();
      },
      { signal: over.signal },
    );
  });
}
