/** What a page is told about its surroundings. In Node there is none of it, and nothing is ever called. */
export interface SignalEvents {
    /** The page came into sight, the network came back or became another: look whether the wire still stands. */
    awake(): void;
    /** The network is another one. */
    moved(): void;
}
/** Listens until the function that comes back is called. */
export declare function watchSignals(events: SignalEvents): () => void;
