// The net between a page and the server, with scissors.

import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";

/** Passes TCP on. `cut` resets all connections; new ones pass. */
export class TcpProxy {
  #sockets = new Set();
  #server;

  static async to(port) {
    const proxy = new TcpProxy();
    proxy.#server = createServer((client) => {
      const server = connect(port, "127.0.0.1");
      for (const [one, other] of [
        [client, server],
        [server, client],
      ]) {
        proxy.#sockets.add(one);
        one.setNoDelay(true);
        one.pipe(other);
        one.on("error", () => {});
        one.on("close", () => {
          proxy.#sockets.delete(one);
          other.destroy();
        });
      }
    });
    await new Promise((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    proxy.port = proxy.#server.address().port;
    return proxy;
  }

  cut() {
    const count = this.#sockets.size;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    return count;
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Passes UDP on. `cut` drops all flows there are for good, without a word, as a network that changed does. */
export class UdpProxy {
  #flows = new Map();
  #socket = createSocket("udp4");

  static async to(port) {
    const proxy = new UdpProxy();
    proxy.#socket.on("message", (data, client) => {
      const key = client.port;
      let flow = proxy.#flows.get(key);
      if (!flow) {
        const socket = createSocket("udp4");
        flow = { socket, dead: false, port: client.port };
        socket.on("message", (answer) => flow.dead || proxy.#socket.send(answer, client.port, "127.0.0.1"));
        socket.on("error", () => {});
        proxy.#flows.set(key, flow);
      }
      if (!flow.dead) flow.socket.send(data, port, "127.0.0.1");
    });
    await new Promise((resolve) => proxy.#socket.bind(0, "127.0.0.1", resolve));
    proxy.port = proxy.#socket.address().port;
    return proxy;
  }

  cut() {
    let count = 0;
    for (const flow of this.#flows.values()) {
      if (!flow.dead) count++;
      flow.dead = true;
    }
    return count;
  }

  stop() {
    this.#socket.close();
    for (const { socket } of this.#flows.values()) socket.close();
  }
}

/** A UDP port that takes everything and says nothing: a firewall. */
export async function blackHole() {
  const socket = createSocket("udp4");
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return { port: socket.address().port, stop: () => socket.close() };
}
