// What is known of one room: its events in order, who is there, who types. No network, no page.

const TYPING_MS = 5_000;
const KEEP_EVENTS = 600;
const KEEP_AFTER_TRIM = 400;
const MAX_TYPING = 20;
const MAX_PEOPLE = 200;

export class Room {
  constructor(name) {
    this.name = name;
    /** Events in the order of the room; also `{kind: "reset", id, reason}` where some are missing. */
    this.events = [];
    /** The last position delivered: where a join goes on. */
    this.position = null;
    this.joined = false;
    /** Older events may exist. */
    this.more = true;
    this.loaded = false;
    this.loading = false;
    this.count = 0;
    /** userId -> username, at most 200. */
    this.people = new Map();
    this.typing = new Map();
    this.#ids = new Set();
  }

  #ids;

  /** Appends a delivered event; false when it is known already. */
  add(event) {
    this.position = event.position;
    if (this.#ids.has(event.id)) return false;
    this.#ids.add(event.id);
    this.events.push(event);
    this.#meet(event);
    return true;
  }

  /**
   * Puts a page of history in, oldest first, from index `start` on. Where the page overlaps with what
   * is known, the rest of the page comes behind the overlap.
   */
  merge(page, start) {
    let at = start;
    for (const event of page) {
      if (this.#ids.has(event.id)) {
        const known = this.events.findIndex(({ id }) => id === event.id);
        at = Math.max(at, known + 1);
      } else {
        this.#ids.add(event.id);
        this.events.splice(at, 0, event);
        at += 1;
      }
    }
  }

  /** Index behind the event at a position, or the end. */
  behind(position) {
    const index = this.events.findLastIndex((event) => event.position === position);
    return index < 0 ? this.events.length : index + 1;
  }

  /** The oldest position held, to read what is before it. */
  get oldest() {
    return this.events.find((event) => event.position)?.position ?? null;
  }

  has(id) {
    return this.#ids.has(id);
  }

  /** Notes a hole at the end; false when one stands there already (its reason is then updated). */
  reset(reason) {
    const last = this.events.at(-1);
    if (last?.kind === "reset") {
      if (reason) last.reason = reason;
      return false;
    }
    if (last) this.events.push({ kind: "reset", id: `reset:${last.id}`, reason, at: last.at });
    return true;
  }

  /** Forgets the oldest events of a long room; they can be read again. */
  trim() {
    if (this.events.length <= KEEP_EVENTS) return false;
    for (const { id } of this.events.splice(0, this.events.length - KEEP_AFTER_TRIM)) this.#ids.delete(id);
    this.more = true;
    return true;
  }

  setPresence({ count = 0, members = [] }) {
    this.count = count;
    this.people = new Map(members.slice(0, MAX_PEOPLE).map(({ userId, username }) => [userId, username]));
  }

  noteTyping(username, now) {
    if (this.typing.size < MAX_TYPING || this.typing.has(username)) this.typing.set(username, now + TYPING_MS);
  }

  /** Names of those who type now. */
  typists(now) {
    for (const [name, until] of this.typing) if (until <= now) this.typing.delete(name);
    return [...this.typing.keys()];
  }

  // The list moves with the events at once; `who` corrects it soon after.
  #meet({ kind, userId, username, previousUsername }) {
    if (kind === "text" || kind === "left") this.typing.delete(username);
    if (kind === "joined" && !this.people.has(userId)) {
      this.count += 1;
      if (this.people.size < MAX_PEOPLE) this.people.set(userId, username);
    }
    if (kind === "left" && this.people.delete(userId)) this.count = Math.max(0, this.count - 1);
    if (kind === "renamed") {
      this.typing.delete(previousUsername);
      if (this.people.has(userId)) this.people.set(userId, username);
    }
  }
}
