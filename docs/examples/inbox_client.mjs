// A follower's inbox, kept in step with NotifyHub: REST for what is stored, the socket for what is new.
//
// No dependencies: browsers, Deno, Bun, and Node 22 or newer, which has WebSocket.
//
//   import { InboxClient } from "./inbox_client.mjs";
//   const inbox = new InboxClient("https://notifyhub.example", getToken, (what, entry) => console.log(what, entry));
//   inbox.start();
//
// `getToken` is an async function that asks *your* back end for the token of whoever is signed in: a service's key
// belongs there, and into no app. A page of another origin than NotifyHub's must be named in INBOX_ORIGINS.

const REST_TIMEOUT_MS = 30_000; // Longer than the server's own patience.
const ATTEMPTS = 5;
const PING_EVERY_MS = 25_000;
const PONG_WITHIN_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const MOST_KNOWN_IDS = 500; // What the server takes in one `resume`.
const UNAUTHORISED = 4401;
const FORBIDDEN = 4403;

/** Grows from try to try, and never the same for two clients: so they do not all come back at once. */
export function pauseMs(failures) {
  const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return longest / 2 + Math.random() * (longest / 2);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The alerts of one follower, in `entries` by their ids; `onChange(what, entry)` is told of what is `new`, `gone`,
 * `read` and `unread`, and of `closed` without an entry, when this follower is not let in. */
export class InboxClient {
  entries = new Map();
  #token = null;
  #since = ""; // The `created_at` of the newest entry: from there a broken line is resumed.
  #clockAheadMs = 0; // The server's clock says what has expired; ours may be wrong.
  #failures = 0;
  #turn = Promise.resolve(); // Frames wait their turn while the stored inbox is read.
  #toRead = new Set();

  constructor(host, getToken, onChange) {
    this.host = host;
    this.getToken = getToken;
    this.onChange = onChange;
  }

  start() {
    this.isOver = false;
    this.expiry = setInterval(() => this.#dropExpired(), 1_000);
    this.#connect();
  }

  stop() {
    this.isOver = true;
    for (const timer of [this.expiry, this.pings]) clearInterval(timer);
    for (const timer of [this.retry, this.silence]) clearTimeout(timer);
    this.socket?.close();
  }

  /** For the badge. A client that keeps only a page takes the count that `unread_count.changed` says. */
  get unread() {
    return [...this.entries.values()].filter((entry) => !entry.read_at).length;
  }

  /** A person has seen it. Sent soon; when the line is back, if it is down. */
  markRead(id) {
    this.#toRead.add(id);
    if (this.isReady) this.#next(this.socket, () => this.#sendReads());
  }

  // --- The socket -----------------------------------------------------------------------------------------------------
  async #connect() {
    let socket, token;
    try {
      token = await this.#currentToken();
      const url = new URL("/ws/inbox/", this.host);
      url.protocol = url.protocol.replace("http", "ws");
      socket = new WebSocket(url, ["notifyhub.v1", token]);
    } catch {
      return this.#again();
    }
    this.socket = socket;
    socket.onopen = () => {
      this.#ping(socket);
      this.pings = setInterval(() => this.#ping(socket), PING_EVERY_MS);
      const known = [...this.entries.keys()].slice(-MOST_KNOWN_IDS);
      if (this.#since) this.#send({ type: "resume", since: this.#since, known });
    };
    socket.onmessage = ({ data }) => {
      clearTimeout(this.silence);
      this.#next(socket, () => this.#take(JSON.parse(data)));
    };
    socket.onclose = ({ code }) => {
      if (code === UNAUTHORISED) this.#refused(token);
      this.#lost(socket, code);
    };
  }

  /** Each step after the one before, as far as the line is still the same. */
  #next(socket, step) {
    this.#turn = this.#turn.then(() => this.socket === socket && step()).catch(() => this.#lost(socket));
  }

  #ping(socket) {
    this.#send({ type: "ping" });
    // A dead line shows by nothing else: the browser's own event comes after a minute.
    this.silence = setTimeout(() => this.#lost(socket), PONG_WITHIN_MS);
  }

  #lost(socket, code) {
    if (this.socket !== socket) return;
    this.socket = null;
    this.isReady = false;
    clearInterval(this.pings);
    clearTimeout(this.silence);
    socket.close();
    if (this.isOver) return;
    if (code === FORBIDDEN) {
      this.stop();
      this.onChange("closed");
    } else this.#again();
  }

  #again() {
    if (!this.isOver) this.retry = setTimeout(() => this.#connect(), pauseMs(this.#failures++));
  }

  #send(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  async #take(frame) {
    const { type, ...fields } = frame;
    if (type === "notification.created") this.#keep(fields);
    else if (type === "notification.updated" && this.entries.has(fields.id)) this.#keep({ ...this.entries.get(fields.id), ...fields });
    else if (type === "notification.removed") this.#drop(fields.id);
    else if (type === "pong") this.#clockAheadMs = Date.parse(fields.now) - Date.now();
    else if (type === "unread_count.changed") {
      if (this.isReady) return;
      // From now on all that is new is told: the time to look at what is stored.
      this.isReady = true;
      this.#failures = 0;
      await this.#list();
      await this.#sendReads();
    }
  }

  async #sendReads() {
    for (const id of this.#toRead) {
      await this.#call(`inbox/${id}/read`, "PATCH");
      this.#toRead.delete(id);
    }
  }

  /** Takes an entry as it is now; one that we have may come again. */
  #keep(entry) {
    const known = this.entries.get(entry.id);
    this.entries.set(entry.id, entry);
    if (entry.created_at > this.#since) this.#since = entry.created_at;
    if (!known) {
      this.#send({ type: "ack", id: entry.id, event: "received" });
      this.onChange("new", entry);
    } else if (known.read_at !== entry.read_at) this.onChange(entry.read_at ? "read" : "unread", entry);
  }

  #drop(id) {
    const entry = this.entries.get(id);
    if (this.entries.delete(id)) this.onChange("gone", entry);
  }

  /** Nobody tells when an alert's time is over: its `expires_at` says it, by the server's clock. */
  #dropExpired() {
    const now = Date.now() + this.#clockAheadMs;
    for (const entry of this.entries.values()) if (Date.parse(entry.expires_at) <= now) this.#drop(entry.id);
  }

  // --- REST -----------------------------------------------------------------------------------------------------------
  /** The whole inbox, page by page: also tells what became of entries beyond those that a resume can name. */
  async #list() {
    const stored = new Map();
    let query = "?limit=100";
    while (query) {
      const page = await this.#call(`inbox/${query}`);
      for (const entry of page.results) stored.set(entry.id, entry);
      query = page.next && new URL(page.next).search;
    }
    for (const id of this.entries.keys()) if (!stored.has(id)) this.#drop(id);
    for (const entry of [...stored.values()].reverse()) this.#keep(entry); // The oldest first, as they came.
  }

  /** The answer's body; null if there is none, or no such thing any more. */
  async #call(path, method = "GET") {
    let answer;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const token = await this.#currentToken();
      const headers = { authorization: `Bearer ${token}` };
      const signal = AbortSignal.timeout(REST_TIMEOUT_MS);
      answer = await fetch(new URL(`/api/v1/${path}`, this.host), { method, headers, signal, cache: "no-store" });
      if (answer.status === 401) this.#refused(token);
      else if (answer.status === 429 || answer.status >= 500) {
        await sleep(1_000 * (answer.headers.get("Retry-After") ?? 0) + pauseMs(attempt));
      } else break;
    }
    if (answer.status === 404 || answer.status === 204) return null;
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.json();
  }

  /** Everybody who asks meanwhile is given the same one. */
  #currentToken() {
    this.#token ??= Promise.resolve(this.getToken()).catch((error) => {
      this.#token = null;
      throw error;
    });
    return this.#token;
  }

  async #refused(token) {
    if ((await this.#token) === token) this.#token = null;
  }
}
