/** Runs `task` once the current one is done, before anything else. */
export declare const defer: (task: () => void) => void;
