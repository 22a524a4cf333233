/** Runs `task` once the current one is done, before anything else. */
export const defer: (task: () => void) => void =
  typeof queueMicrotask === "function" ? queueMicrotask : (task) => void Promise.resolve().then(task);
