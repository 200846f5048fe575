// Messages that are not known to be stored. They live in the tab's storage, keep their client id over
// reloads and reconnects, and so are stored once however often they are sent.

import { tab } from "./storage.js";
import { randomId } from "./text.js";

const KEY = "outbox";
const MAX_ENTRIES = 100;
// The store knows an id for two minutes; half of it is left for what is under way.
const KNOWN_MS = 60_000;

export class Outbox {
  // `tried` is when an entry was first sent, 0: not yet. Entries: {clientId, room, text, at, tried, tries, state: "waiting"|"sending"|"sent"|"failed", error}
  #entries = tab.get(KEY, []).map((entry) => ({
    ...entry,
    tries: 0,
    state: entry.state === "failed" ? "failed" : "waiting",
  }));

  /** Entries of a room in the order in which they were written. */
  of(room) {
    return this.#entries.filter((entry) => entry.room === room);
  }

  /** Rooms with something to send. */
  rooms() {
    return new Set(this.#entries.filter(({ state }) => state === "waiting").map(({ room }) => room));
  }

  get full() {
    return this.#entries.length >= MAX_ENTRIES;
  }

  add(room, text) {
    this.#entries.push({ clientId: randomId(), room, text, at: Date.now(), tried: 0, tries: 0, state: "waiting" });
    this.#save();
  }

  /** The next one to send in a room, or undefined while one is under way. */
  next(room) {
    const open = this.of(room).filter(({ state }) => state === "waiting" || state === "sending");
    return open[0]?.state === "waiting" ? open[0] : undefined;
  }

  /** Whether the store may have forgotten an earlier attempt, and must look for it in the room. A clock that was set back tells nothing. */
  isOld({ tried }) {
    const age = Date.now() - tried;
    return tried > 0 && (age < 0 || age > KNOWN_MS);
  }

  update(entry, change) {
    Object.assign(entry, change);
    this.#save();
  }

  find(clientId) {
    return this.#entries.find((entry) => entry.clientId === clientId);
  }

  remove(clientId) {
    this.#entries = this.#entries.filter((entry) => entry.clientId !== clientId);
    this.#save();
  }

  #save() {
    const kept = this.#entries.filter(({ state }) => state !== "sent");
    tab.set(KEY, kept.length ? kept : null);
  }
}
