/** Takes one event. */
export type Listener<T> = (event: T) => void;
/** Events by name, each with one typed argument. A listener that throws disturbs neither the others nor us. */
export declare class Emitter<Events extends object> {
    private readonly listeners;
    /** Adds a listener. Call what comes back to remove it. */
    on<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void;
    /** Adds a listener for the next event alone. */
    once<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void;
    off<K extends keyof Events>(name: K, listener: Listener<Events[K]>): void;
}
