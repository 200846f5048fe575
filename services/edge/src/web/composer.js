// The two rows at the bottom: the name, and the message. Faults are answered at their field.

import { errorText, t } from "./i18n.js";
import { tab } from "./storage.js";
import { MAX_NAME_CHARACTERS, MAX_TEXT_BYTES, byteLength, characters } from "./text.js";
import { paintAvatar } from "./timeline.js";

const COUNT_FROM_BYTES = 3_500;
const $ = (id) => document.getElementById(id);

/** Shows or clears what is wrong with a field. */
export function fault(field, note, text) {
  note.textContent = text;
  if (text) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

export class Composer {
  #chat;
  #speak;
  #sent;
  #name = $("name-field");
  #message = $("message-field");
  #drafted = null;

  /** `speak(text)` says something to a screen reader, `sent()` follows an own message. */
  constructor(chat, { speak, sent }) {
    this.#chat = chat;
    this.#speak = speak;
    this.#sent = sent;
    $("name-form").addEventListener("submit", (event) => this.#submitName(event));
    $("message-form").addEventListener("submit", (event) => this.#submitMessage(event));
    this.#name.addEventListener("input", () => fault(this.#name, $("name-error"), ""));
    this.#message.addEventListener("input", () => this.#typed());
    this.#message.addEventListener("keydown", (event) => this.#key(event));
    for (const id of ["name-open", "me-change"]) $(id).addEventListener("click", () => this.openName());
    $("name-cancel").addEventListener("click", () => this.#closeName());
    this.#name.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#chat.name) this.#closeName();
    });
    chat.addEventListener("name-refused", ({ detail }) => {
      this.openName(detail.code === "username_required" ? "" : this.#chat.name);
      fault(this.#name, $("name-error"), errorText(detail));
    });
    this.draw();
  }

  /** The name row is there while there is no name, or when asked for. */
  openName(value = this.#chat.name) {
    $("name-form").hidden = false;
    $("name-cancel").hidden = !this.#chat.name;
    this.#name.value = value;
    this.#name.focus();
    this.#name.select();
  }

  focus() {
    (this.#chat.name ? this.#message : this.#name).focus();
  }

  draw() {
    const { name, userId, room } = this.#chat;
    if (!name) $("name-form").hidden = false;
    for (const id of ["name-avatar", "me-avatar"]) paintAvatar($(id), userId, name);
    $("me-name").textContent = name || t("guest");
    $("me-change").textContent = t(name ? "name_change" : "name_set");
    $("me-name").classList.toggle("none", !name);
    const label = name ? `${t("name_change")} (${name})` : t("name_set");
    $("name-open").setAttribute("aria-label", label);
    $("name-open").title = label;
    if (!room) return;
    this.#message.placeholder = t("message_placeholder", room.name);
    if (this.#drafted !== room.name) {
      this.#drafted = room.name;
      this.#message.value = tab.get(`draft.${room.name}`, "");
      this.#measure();
    }
  }

  async #submitName(event) {
    event.preventDefault();
    const wanted = this.#name.value.trim();
    const length = characters(wanted);
    const note = $("name-error");
    if (!wanted) return this.#refuse(this.#name, note, t("name_empty"));
    if (length > MAX_NAME_CHARACTERS) return this.#refuse(this.#name, note, t("name_long", length));
    try {
      await this.#chat.setName(wanted);
    } catch (refused) {
      return this.#refuse(this.#name, note, errorText(refused));
    }
    this.#closeName();
    this.#speak(t("name_done", this.#chat.name));
  }

  #closeName() {
    fault(this.#name, $("name-error"), "");
    fault(this.#message, $("message-error"), "");
    $("name-form").hidden = true;
    this.#message.focus();
  }

  #submitMessage(event) {
    event.preventDefault();
    const text = this.#message.value.replace(/\s+$/, "").replace(/^\s*\n/, "");
    const note = $("message-error");
    const bytes = byteLength(text.normalize("NFC"));
    if (!text.trim()) return this.#refuse(this.#message, note, t("message_empty"));
    if (bytes > MAX_TEXT_BYTES) return this.#refuse(this.#message, note, t("message_long", bytes, MAX_TEXT_BYTES));
    if (!this.#chat.name) {
      this.openName(this.#name.value);
      return this.#refuse(this.#name, $("name-error"), t("name_first"));
    }
    if (!this.#chat.write(text)) return this.#refuse(this.#message, note, errorText({ code: "busy" }));
    this.#message.value = "";
    this.#typed(false);
    this.#message.focus();
    this.#sent();
  }

  #refuse(field, note, text) {
    fault(field, note, text);
    field.focus();
  }

  // A key that an input method takes is not ours: Enter chooses a candidate there.
  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    $("message-form").requestSubmit();
  }

  #typed(tell = true) {
    fault(this.#message, $("message-error"), "");
    tab.set(`draft.${this.#chat.room.name}`, this.#message.value || null);
    this.#measure();
    if (tell && this.#message.value.trim()) this.#chat.typing();
  }

  #measure() {
    const field = this.#message;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    const bytes = field.value.length * 3 < COUNT_FROM_BYTES ? 0 : byteLength(field.value.normalize("NFC"));
    const near = bytes >= COUNT_FROM_BYTES;
    $("message-count").textContent = near ? t("message_count", bytes, MAX_TEXT_BYTES) : "";
    $("message-count").classList.toggle("over", bytes > MAX_TEXT_BYTES);
  }
}
