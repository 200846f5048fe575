// The chat itself: a name, a room on the screen, and messages on their way. Ties the connection, the
// rooms and the outbox together and tells the views what changed.

import { delay } from "./backoff.js";
import { Connection, Refused } from "./connection.js";
import { current as language } from "./i18n.js";
import { Outbox } from "./outbox.js";
import { Room } from "./room.js";
import { browser, tab } from "./storage.js";
import { randomId } from "./text.js";

const PAGE = 50;
const MAX_TRIES = 6;
const MAX_EVENTS = 5_000;
const MAX_RECENT = 12;
const READ_AGAIN_MS = 5_000;
const TYPING_EVERY_MS = 3_000;
const FILL_EVERY_MS = 5_000;
const AGAIN = new Set(["rate_limited", "busy", "unavailable", "timeout", "lease_lost", "not_joined"]);

export class Chat extends EventTarget {
  userId = "";
  name = tab.get("name", "");
  nameKnown = false;
  recent = browser.get("rooms", []);
  outbox = new Outbox();

  #rooms = new Map();
  #current = null;
  #joining = new Map();
  #sending = new Set();
  #naming = null;
  #typedAt = 0;
  #whoTimer = 0;
  #filledAt = 0;

  constructor() {
    super();
    if (!tab.get("guest")) tab.set("guest", randomId());
    this.connection = new Connection({
      hello: () => ({
        guest: tab.get("guest"),
        locale: language(),
        resume: tab.get("ticket") ?? undefined,
        token: tab.get("token") ?? undefined,
      }),
      probe: () => this.#current?.joined && { who: { room: this.#current.name } },
      onWelcome: (welcome) => this.#enter(welcome),
      onFrame: (kind, body) => this.#frame(kind, body),
      onState: (state) => this.#stateChanged(state),
      // A tab that is duplicated takes its ticket along: one of the two goes on with a session of its own,
      // or they would take the one session from each other for ever.
      onReplaced: () => tab.set("ticket", null),
    });
  }

  get room() {
    return this.#current;
  }

  /** Shows a room: joins it, and leaves the one before unless messages still wait there. */
  visit(name) {
    const before = this.#current;
    if (before?.name === name) return;
    if (!this.#rooms.has(name)) this.#rooms.set(name, new Room(name));
    this.#current = this.#rooms.get(name);
    this.recent = [name, ...this.recent.filter((other) => other !== name)].slice(0, MAX_RECENT);
    browser.set("rooms", this.recent);
    if (before) this.#leaveUnneeded(before);
    this.#changed("room");
    if (this.connection.online) this.#ready(this.#current).catch(() => {});
  }

  /** Takes a room off the list of recent ones. */
  forget(name) {
    this.recent = this.recent.filter((other) => other !== name);
    browser.set("rooms", this.recent);
    this.#changed("room");
  }

  /** Sets the name; without a connection it is kept and set later. Rejects with [`Refused`]. */
  async setName(wanted) {
    if (this.connection.online) {
      const { username, ticket } = await this.connection.ask({ setUsername: { username: wanted } });
      if (ticket) tab.set("ticket", ticket);
      this.nameKnown = true;
      this.#keepName(username || wanted);
      this.#flush();
    } else {
      this.nameKnown = false;
      this.#keepName(wanted);
    }
  }

  /** Takes a message on; it is shown at once and sent as soon as it can be. False: too many wait. */
  write(text) {
    if (this.outbox.full) return false;
    this.outbox.add(this.#current.name, text);
    this.#typedAt = 0;
    this.#changed("messages");
    this.#flush();
    return true;
  }

  /** Sends a failed message again. One too old to be recognised by the server is a new message. */
  retry(clientId) {
    const entry = this.outbox.find(clientId);
    if (!entry) return;
    const fresh = entry.error?.code === "expired" ? { clientId: randomId(), tried: 0 } : {};
    this.outbox.update(entry, { ...fresh, state: "waiting", tries: 0, error: null });
    this.#changed("messages");
    this.#flush();
  }

  discard(clientId) {
    this.outbox.remove(clientId);
    this.#changed("messages");
  }

  /** Tells the others that this user types, at most every 3 s. */
  typing() {
    const now = performance.now();
    if (!this.nameKnown || !this.#current.joined || (this.#typedAt && now - this.#typedAt < TYPING_EVERY_MS)) return;
    if (this.connection.tell({ typing: { room: this.#current.name } })) this.#typedAt = now;
  }

  /** Reads a page of older messages of the room on the screen. */
  async older() {
    const room = this.#current;
    if (!room.joined || !room.loaded || room.loading || !room.more || room.events.length >= MAX_EVENTS) return;
    await this.#read(room, { before: room.oldest ?? undefined }, 0);
  }

  isMine(event) {
    return event.userId === this.userId;
  }

  async #enter(welcome) {
    this.userId = welcome.userId ?? "";
    if (welcome.ticket) tab.set("ticket", welcome.ticket);
    const known = welcome.username ?? "";
    if (!this.name && known) this.#keepName(known);
    this.nameKnown = Boolean(known) && known === this.name;
    const naming = this.#introduce();
    this.#changed("name");
    await Promise.allSettled([naming, this.#ready(this.#current)]);
    this.#flush();
  }

  /** Tells the server the name that it does not know, one attempt at a time, again while the service is away. */
  #introduce() {
    this.#naming ??= this.#claimName().finally(() => (this.#naming = null));
    return this.#naming;
  }

  async #claimName() {
    for (let attempt = 0; this.name && !this.nameKnown && this.connection.online; attempt += 1) {
      const wanted = this.name;
      try {
        const { username, ticket } = await this.connection.ask({ setUsername: { username: wanted } });
        if (ticket) tab.set("ticket", ticket);
        this.nameKnown = true;
        this.#keepName(username || wanted);
      } catch (refused) {
        if (!refused.lost && !AGAIN.has(refused.code)) {
          this.dispatchEvent(new CustomEvent("name-refused", { detail: refused }));
          return;
        }
        await pause(delay({ attempt, random: Math.random() }));
      }
    }
  }

  #keepName(name) {
    this.name = name;
    tab.set("name", name);
    this.#changed("name");
  }

  /** Resolves once the room is joined; one attempt at a time, repeated while the service is away. */
  #ready(room) {
    if (room.joined) return Promise.resolve();
    if (!this.#joining.has(room)) {
      this.#joining.set(room, this.#join(room).finally(() => this.#joining.delete(room)));
    }
    return this.#joining.get(room);
  }

  async #join(room) {
    for (let attempt = 0; ; attempt += 1) {
      const after = room.position ?? undefined;
      try {
        const joined = await this.connection.ask({ join: { room: room.name, after } });
        room.joined = true;
        room.count = joined.members ?? 0;
        if (after && !joined.recovered) this.#reset(room, null);
        if (!after || !joined.recovered) room.position = joined.position ?? null;
        if (!room.loaded) this.#read(room, {}, 0);
        this.#askWho(room, 0);
        this.#changed("messages");
        // The reader may have gone on to another room meanwhile.
        if (!this.#sending.has(room.name)) this.#leaveUnneeded(room);
        return;
      } catch (refused) {
        if (refused.code === "bad_position" && after) {
          this.#reset(room, "epoch");
          room.position = null;
        } else if (refused.lost ? !this.connection.online : !AGAIN.has(refused.code)) {
          if (!refused.lost) this.dispatchEvent(new CustomEvent("refused", { detail: refused }));
          throw refused;
        }
        await pause(delay({ attempt, random: Math.random() }));
        if (!this.connection.online) throw new Refused("unavailable", null, true);
      }
    }
  }

  #leaveUnneeded(room) {
    if (!room.joined || room === this.#current || this.outbox.next(room.name)) return;
    room.joined = false;
    this.connection.ask({ leave: { room: room.name } }).catch(() => {});
  }

  #frame(kind, body) {
    const room = this.#rooms.get(body.room);
    if (kind === "error") {
      // Unasked: the server's own sentence says why, such as the reason of an operator.
      const { code, message } = body;
      this.dispatchEvent(new CustomEvent("refused", { detail: { code: message ? "" : code, message } }));
    }
    if (!room) return;
    if (kind === "event") this.#event(room, body);
    if (kind === "presence") {
      room.setPresence(body);
      this.#changed("people");
    }
    if (kind === "reset") {
      this.#reset(room, body.reason);
      room.position = body.to || room.position;
      this.#changed("messages");
    }
    if (kind === "typing" && body.username) {
      room.noteTyping(body.username, Date.now());
      this.#changed("typing");
    }
  }

  #event(room, event) {
    if (event.previous && room.position && event.previous !== room.position) this.#fill(room, room.position);
    const isNew = room.add(event);
    if (event.clientId && this.isMine(event)) this.outbox.remove(event.clientId);
    if (!isNew) return;
    if (event.kind !== "text" && event.kind !== "data" && event.kind !== "notice") this.#askWho(room);
    this.dispatchEvent(new CustomEvent("arrived", { detail: { room, event } }));
    this.#changed("messages");
  }

  /** Something between two deliveries is missing: read it. */
  #fill(room, after) {
    if (performance.now() - this.#filledAt < FILL_EVERY_MS) return;
    this.#filledAt = performance.now();
    this.#read(room, { after, limit: 100 }, room.behind(after));
  }

  #reset(room, reason) {
    if (room.reset(reason) && room.loaded) this.#read(room, {}, room.events.length);
  }

  async #read(room, from, start) {
    room.loading = true;
    this.#changed("messages");
    try {
      const { events = [], more = false } = await this.connection.ask({
        history: { room: room.name, limit: PAGE, ...from },
      });
      room.merge(events, start);
      for (const event of events) if (event.clientId && this.isMine(event)) this.outbox.remove(event.clientId);
      if (start === 0) room.more = more;
      room.loaded = true;
    } catch (refused) {
      if (refused.code === "trimmed") room.more = false;
      else if (!refused.lost) await pause(READ_AGAIN_MS);
      if (!room.loaded && room.joined) setTimeout(() => room.joined && this.#read(room, from, start), READ_AGAIN_MS);
    } finally {
      room.loading = false;
      this.#changed("messages");
    }
  }

  /** Asks who is here, soon and at random, later in a crowd: a join must not make everyone ask. */
  #askWho(room, within = room.count > 200 ? 30_000 : 2_000) {
    if (room !== this.#current) return;
    clearTimeout(this.#whoTimer);
    this.#whoTimer = setTimeout(async () => {
      if (!room.joined || room !== this.#current) return;
      try {
        room.setPresence(await this.connection.ask({ who: { room: room.name } }));
        this.#changed("people");
      } catch {
        // The next change of the room asks again.
      }
    }, within * (0.25 + 0.75 * Math.random()));
  }

  #stateChanged(state) {
    if (state.kind !== "online") {
      this.nameKnown = false;
      for (const room of this.#rooms.values()) room.joined = false;
    }
    this.#changed("state");
  }

  #flush() {
    if (!this.connection.online || !this.nameKnown) return;
    for (const name of this.outbox.rooms()) this.#send(name);
  }

  /** Sends a room's messages one after the other, so that they are stored as they were written. */
  async #send(name) {
    if (this.#sending.has(name)) return;
    this.#sending.add(name);
    if (!this.#rooms.has(name)) this.#rooms.set(name, new Room(name));
    const room = this.#rooms.get(name);
    try {
      for (let entry; (entry = this.outbox.next(name)) && this.connection.online && this.nameKnown; ) {
        await this.#ready(room);
        await this.#publish(room, entry);
      }
    } catch {
      // The room cannot be joined now: the next connection tries again.
    } finally {
      this.#sending.delete(name);
      this.#leaveUnneeded(room);
    }
  }

  async #publish(room, entry) {
    const { clientId, text } = entry;
    const retry = this.outbox.isOld(entry) || undefined;
    this.outbox.update(entry, { state: "sending", tried: entry.tried || Date.now() });
    this.#changed("messages");
    try {
      const { duplicate } = await this.connection.ask({ publish: { room: room.name, text, clientId, retry } });
      if (duplicate) this.outbox.remove(clientId);
      else this.outbox.update(entry, { state: "sent" });
      this.#changed("messages");
    } catch (refused) {
      await this.#notPublished(room, entry, refused);
    }
  }

  async #notPublished(room, entry, refused) {
    const { code, message, lost } = refused;
    const again = lost || AGAIN.has(code) || code === "username_required";
    const tries = entry.tries + (this.connection.online ? 1 : 0);
    if (again && tries < MAX_TRIES) this.outbox.update(entry, { state: "waiting", tries });
    else this.outbox.update(entry, { state: "failed", tries, error: { code, message } });
    this.#changed("messages");
    if (code === "username_required") {
      this.nameKnown = false;
      if (this.name) this.#introduce().then(() => this.#flush());
      else this.dispatchEvent(new CustomEvent("name-refused", { detail: refused }));
    }
    if (code === "not_joined") room.joined = false;
    if (again && this.connection.online) await pause(delay({ attempt: tries, random: Math.random() }));
  }

  #changed(what) {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
