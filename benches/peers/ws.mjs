// A fan-out server of `ws`, as its documentation shows one: `/sub/CHANNEL` listens, `/pub/CHANNEL` speaks.
import { WebSocketServer } from "ws";

const channels = new Map();

function subscribersOf(channel) {
  if (!channels.has(channel)) channels.set(channel, new Set());
  return channels.get(channel);
}

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });
server.on("connection", (socket, request) => {
  const [, role, channel] = request.url.split("/");
  const subscribers = subscribersOf(channel);
  socket.on("error", () => socket.terminate());
  if (role === "sub") {
    subscribers.add(socket);
    socket.on("close", () => subscribers.delete(socket));
    return;
  }
  socket.on("message", (data, binary) => {
    for (const subscriber of subscribers) subscriber.send(data, { binary });
  });
});
