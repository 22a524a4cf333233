import type * as wire from "./wire.js";

/** An answer that came whole, whatever its status. */
export interface HttpAnswer {
  status: number;
  body: string;
}

/** A request under way. */
export interface HttpRequest {
  /** Rejects when the network failed, the time was up or `cancel` was called. */
  readonly answer: Promise<HttpAnswer>;
  cancel(): void;
}

/** Reads the body of a refusal (RFC 9457). Throws where it is none, but a proxy's page. */
export function problem(body: string): wire.Error {
  const { detail: message, ...rest } = JSON.parse(body) as wire.Problem;
  return { ...rest, message };
}

/**
 * One HTTP request, by `fetch` or, in browsers that lack it, XMLHttpRequest. A body goes as `text/plain` and
 * without cookies, so that no browser asks the server for permission first (CORS preflight).
 */
export function request(url: string, body: string | undefined, timeout: number): HttpRequest {
  return typeof fetch === "function" ? byFetch(url, body, timeout) : byXhr(url, body, timeout);
}

function byFetch(url: string, body: string | undefined, timeout: number): HttpRequest {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error("no answer came in time")), timeout);
  const answer = fetch(url, {
    method: body === undefined ? "GET" : "POST",
    cache: "no-store",
    credentials: "omit",
    signal: abort.signal,
    ...(body !== undefined && { body, headers: { "content-type": "text/plain" } }),
  })
    .then(async (response) => ({ status: response.status, body: await response.text() }))
    .finally(() => clearTimeout(timer));
  return { answer, cancel: () => abort.abort(new Error("cancelled")) };
}

function byXhr(url: string, body: string | undefined, timeout: number): HttpRequest {
  const xhr = new XMLHttpRequest();
  const answer = new Promise<HttpAnswer>((resolve, reject) => {
    xhr.open(body === undefined ? "GET" : "POST", url);
    xhr.timeout = timeout;
    xhr.onload = () => resolve({ status: xhr.status, body: xhr.responseText });
    xhr.onerror = () => reject(new Error("the request failed"));
    xhr.onabort = () => reject(new Error("cancelled"));
    xhr.ontimeout = () => reject(new Error("no answer came in time"));
    if (body !== undefined) xhr.setRequestHeader("content-type", "text/plain");
    xhr.send(body ?? null);
  });
  return { answer, cancel: () => xhr.abort() };
}
