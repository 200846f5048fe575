// How long to wait before the next attempt to connect. Pure: chance is passed in as 0 <= random < 1.

const BASE_MS = 500;
const CAP_MS = 15_000;
const AFTER_CLOSE_MS = 3_000;
const HINT_CAP_MS = 120_000;

/** A close that the server chose, against a connection that broke. */
export const closedByServer = (code) => code !== 1006 && code !== 1005;

/**
 * Milliseconds to wait.
 * - `hint`: the server's `reconnect{afterMs}`, drawn for this client: kept, at most two minutes.
 * - the first attempt after a server's close: 0 to 3 s, so that a whole edge's clients spread out.
 * - else full jitter: 0 to the doubled base, capped at 15 s.
 */
export function delay({ attempt, hint = null, serverClosed = false, random }) {
  if (hint !== null) return Math.min(Math.max(0, hint), HINT_CAP_MS);
  if (serverClosed && attempt === 0) return random * AFTER_CLOSE_MS;
  return random * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(attempt, 16));
}
