// A small stand-in for an edge, to work on the page without one: serves the page's files and speaks
// Plaza's own protocol in JSON, with everything in memory. Several edges of one process share rooms.
//
//   node mock.mjs [port ...]        needs `npm ci` in tests/clients

import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(new URL("../clients/", import.meta.url));
const WEB = fileURLToPath(new URL("../../services/edge/src/web/", import.meta.url));
const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
const MAX_TEXT_BYTES = 4096;

/** A store that edges share. */
export class Store {
  rooms = new Map();

  room(name) {
    if (!this.rooms.has(name)) this.rooms.set(name, { name, log: [], members: new Set(), ids: new Map() });
    return this.rooms.get(name);
  }

  emit(room, event) {
    const previous = room.log.at(-1)?.position ?? "0";
    const stored = {
      room: room.name, position: String(room.log.length + 1), at: Date.now(),
      id: randomBytes(16).toString("base64url"), ...event,
    };
    room.log.push(stored);
    for (const peer of room.members) peer.send({ event: { ...stored, previous } });
    return stored;
  }
}

class Peer {
  name = "";
  userId = "";
  rooms = new Set();

  constructor(store, socket) {
    this.store = store;
    this.socket = socket;
    socket.on("message", (data) => this.read(JSON.parse(data)));
    socket.on("close", () => this.rooms.forEach((room) => this.leave(room)));
  }

  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  read({ id, ...body }) {
    const [kind] = Object.keys(body);
    const answer = this[`on_${kind}`](body[kind]);
    if (answer) this.send({ id, ...answer });
    if (kind === "join" && answer.joined) this.replay(body.join);
  }

  refuse(code) {
    return { error: { code, message: code } };
  }

  on_hello({ guest }) {
    this.userId = `g:${createHash("sha256").update(guest ?? "").digest("base64url").slice(0, 22)}`;
    return { welcome: { sessionId: randomBytes(15).toString("base64url"), userId: this.userId, username: "", resumed: false, pingIntervalMs: 25000, maxMessageBytes: 65536 } };
  }

  on_setUsername({ username }) {
    if (username === "taken") return this.refuse("username_taken");
    const before = this.name;
    this.name = username;
    for (const room of this.rooms) {
      if (!before) this.store.emit(room, { kind: "joined", username, userId: this.userId });
      else if (before !== username) this.store.emit(room, { kind: "renamed", username, previousUsername: before, userId: this.userId });
    }
    return { ok: { username } };
  }

  on_join({ room: name, after }) {
    const room = this.store.room(name);
    const position = room.log.at(-1)?.position ?? "0";
    return { joined: { room: name, position, members: this.present(room).size, recovered: after !== undefined } };
  }

  replay({ room: name, after }) {
    const room = this.store.room(name);
    if (after !== undefined) {
      room.log.forEach((event, index) => {
        if (Number(event.position) > Number(after)) this.send({ event: { ...event, previous: String(index) } });
      });
    }
    room.members.add(this);
    this.rooms.add(room);
    if (this.name) this.store.emit(room, { kind: "joined", username: this.name, userId: this.userId });
  }

  on_leave({ room: name }) {
    this.leave(this.store.room(name));
    return { ok: {} };
  }

  leave(room) {
    room.members.delete(this);
    this.rooms.delete(room);
    if (this.name) this.store.emit(room, { kind: "left", username: this.name, userId: this.userId });
  }

  on_publish({ room: name, text, clientId }) {
    const room = this.store.room(name);
    if (!this.rooms.has(room)) return this.refuse("not_joined");
    if (!this.name) return this.refuse("username_required");
    if (Buffer.byteLength(text) > MAX_TEXT_BYTES) return this.refuse("too_large");
    const key = `${this.userId} ${clientId}`;
    const known = room.ids.get(key);
    const stored = known ?? this.store.emit(room, { kind: "text", username: this.name, userId: this.userId, text, clientId });
    room.ids.set(key, stored);
    return { published: { room: name, position: stored.position, id: stored.id, duplicate: Boolean(known) } };
  }

  on_typing({ room: name }) {
    for (const peer of this.store.room(name).members) {
      if (peer !== this) peer.send({ typing: { room: name, username: this.name } });
    }
  }

  on_history({ room: name, before, after, limit = 50 }) {
    const log = this.store.room(name).log;
    if (after !== undefined) {
      const rest = log.filter((event) => Number(event.position) > Number(after));
      return { history: { room: name, events: rest.slice(0, limit), more: rest.length > limit } };
    }
    const rest = log.filter((event) => before === undefined || Number(event.position) < Number(before));
    return { history: { room: name, events: rest.slice(-limit), more: rest.length > limit } };
  }

  on_who({ room: name }) {
    const people = this.present(this.store.room(name));
    return { presence: { room: name, count: people.size, members: [...people].map(([userId, username]) => ({ userId, username })) } };
  }

  present(room) {
    return new Map([...room.members].filter((peer) => peer.name).map((peer) => [peer.userId, peer.name]));
  }
}

/** Starts an edge on a port of the kernel's choice; resolves with its base URL. */
export async function start(store = new Store(), port = 0) {
  const { WebSocketServer } = require("ws");
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    const name = path === "/" ? "index.html" : path.replace("/assets/", "");
    const host = request.headers.host;
    try {
      if (!/^[a-z0-9]+\.[a-z]+$/.test(name)) throw new Error("no such file");
      const body = await readFile(WEB + name);
      response.writeHead(200, {
        "content-type": `${TYPES[name.split(".")[1]]}; charset=utf-8`,
        "content-security-policy": `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws://${host} wss://${host}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'`,
      });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  const sockets = new WebSocketServer({ server, path: "/ws", handleProtocols: () => "plaza.v1.json" });
  sockets.on("connection", (socket) => new Peer(store, socket));
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => (sockets.clients.forEach((c) => c.terminate()), server.close()) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const store = new Store();
  const ports = process.argv.slice(2).map(Number);
  for (const port of ports.length ? ports : [0, 0]) console.log((await start(store, port)).url);
}
