// Rooms and people: a column beside the messages, on a phone a drawer over them.

import { t } from "./i18n.js";
import { isRoom } from "./text.js";
import { fault } from "./composer.js";
import { paintAvatar } from "./timeline.js";

const SHOWN = 100;
const $ = (id) => document.getElementById(id);
const copyOf = (id) => $(id).content.firstElementChild.cloneNode(true);
const phone = window.matchMedia("(max-width: 760px)");

export class Sidebar {
  #chat;

  constructor(chat) {
    this.#chat = chat;
    $("room-form").addEventListener("submit", (event) => this.#go(event));
    $("room-field").addEventListener("input", () => fault($("room-field"), $("room-error"), ""));
    $("side-open").addEventListener("click", () => this.open());
    $("me-change").addEventListener("click", () => this.close(false));
    for (const id of ["side-close", "shade"]) $(id).addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#isOpen) this.close();
    });
    phone.addEventListener("change", () => this.close(false));
    this.close(false);
  }

  get #isOpen() {
    return document.body.classList.contains("side-open");
  }

  open() {
    this.#show(true);
    $("side-close").focus();
  }

  close(giveFocusBack = true) {
    const wasOpen = this.#isOpen;
    this.#show(false);
    if (wasOpen && giveFocusBack) $("side-open").focus();
  }

  draw() {
    this.#drawRooms();
    this.drawPeople();
  }

  #show(open) {
    document.body.classList.toggle("side-open", open);
    $("side").inert = phone.matches && !open;
    $("main").inert = open;
    $("shade").hidden = !open;
    $("side-open").setAttribute("aria-expanded", String(open));
  }

  #go(event) {
    event.preventDefault();
    const field = $("room-field");
    const name = field.value.trim().replace(/^#/, "");
    if (!isRoom(name)) {
      fault(field, $("room-error"), t("room_bad"));
      field.focus();
      return;
    }
    field.value = "";
    location.hash = `room=${name}`;
    this.close();
  }

  #drawRooms() {
    const { recent, room } = this.#chat;
    const rows = [...recent].sort().map((name) => {
      const row = copyOf("room-template");
      row.dataset.room = name;
      const link = row.querySelector("a");
      link.href = `#room=${name}`;
      link.querySelector(".label").textContent = name;
      link.addEventListener("click", () => this.close());
      const remove = row.querySelector("button");
      if (name === room.name) {
        link.setAttribute("aria-current", "page");
        remove.remove();
      } else {
        remove.setAttribute("aria-label", t("leave_list", name));
        remove.title = t("leave_list", name);
        remove.addEventListener("click", () => this.#chat.forget(name));
      }
      return row;
    });
    const held = document.activeElement;
    const from = $("rooms").contains(held) ? held.closest("li").dataset.room : null;
    $("rooms").replaceChildren(...rows);
    if (from === null) return;
    // The new rows take the focus over from the old ones; of a row that is gone, the room on the screen.
    const row = rows.find(({ dataset }) => dataset.room === from) ?? rows.find(({ dataset }) => dataset.room === room.name);
    (row?.querySelector(held.tagName) ?? row?.querySelector("a"))?.focus();
  }

  drawPeople() {
    const { room, userId } = this.#chat;
    const people = [...room.people].sort(([a], [b]) => (b === userId) - (a === userId));
    const rows = people.slice(0, SHOWN).map(([id, name]) => {
      const row = copyOf("person-template");
      paintAvatar(row.querySelector(".avatar"), id, name);
      row.querySelector(".label").textContent = name;
      row.querySelector(".note").textContent = id === userId ? t("you") : "";
      return row;
    });
    const rest = room.count - rows.length;
    if (rest > 0 || rows.length === 0) {
      const row = document.createElement("li");
      row.className = "note";
      row.textContent = rows.length === 0 ? t("nobody") : t("more_people", rest);
      rows.push(row);
    }
    $("people").replaceChildren(...rows);
    $("people-count").textContent = room.count || "";
  }
}
