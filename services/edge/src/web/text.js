// Small pure helpers about text: sizes, names, links, colours, random ids.

export const MAX_TEXT_BYTES = 4096;
export const MAX_NAME_CHARACTERS = 32;
export const HUES = 12;
const ROOM = /^[A-Za-z0-9_.:-]{1,64}$/;
const LINK = /\bhttps?:[/][/][^\s<>"'，。；！？（）【】、]+/g;
const encoder = new TextEncoder();

export const byteLength = (text) => encoder.encode(text).length;
export const characters = (text) => [...text.normalize("NFC")].length;
export const isRoom = (name) => ROOM.test(name);

/** 128 random bits, 22 characters base64url. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** A stable number 0 to HUES - 1 for a user (FNV-1a). */
export function hue(key) {
  let hash = 0x811c9dc5;
  for (const byte of encoder.encode(key)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return ((hash ^ (hash >>> 15)) >>> 0) % HUES;
}

/** What a person sees as the first character of a name. */
export function initial(name) {
  if (typeof Intl.Segmenter === "function") {
    for (const { segment } of new Intl.Segmenter().segment(name)) return segment.toUpperCase();
  }
  return ([...name][0] ?? "?").toUpperCase();
}

/** Cuts a text into plain parts and web addresses: `[{text, href?}]`. */
export function parts(text) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const address = match[0].replace(/[.,;:!?)\]]+$/, "");
    if (!URL.canParse(address)) continue;
    if (match.index > end) found.push({ text: text.slice(end, match.index) });
    found.push({ text: address, href: address });
    end = match.index + address.length;
  }
  if (end < text.length) found.push({ text: text.slice(end) });
  return found;
}
