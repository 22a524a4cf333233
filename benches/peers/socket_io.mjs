// Socket.IO with a room for each channel, over WebSocket only.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });
io.on("connection", socket => {
  socket.on("subscribe", (channel, joined) => {
    socket.join(channel);
    joined();
  });
  socket.on("publish", (channel, data) => io.to(channel).emit("message", data));
});
http.listen(Number(process.argv[2]), "127.0.0.1");
