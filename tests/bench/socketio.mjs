// The npm socket.io server with the chat's few events. Prints its port.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { serveClient: false });
io.on("connection", (socket) => {
  const { room } = socket.handshake.auth;
  if (room) socket.join(room);
  socket.on("set_username", (name, acknowledge) => {
    socket.data.username = name;
    acknowledge({ ok: true, username: name });
  });
  socket.on("join", (other, acknowledge) => {
    socket.join(other);
    acknowledge({ ok: true, room: other });
  });
  socket.on("message", (text) => io.to(room).emit("message", `${socket.data.username}:${text}`));
});
http.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${http.address().port}`));
