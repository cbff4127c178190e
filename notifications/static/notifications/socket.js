// The inbox's connection: opens, resumes, and comes back by itself with growing pauses.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const UNAUTHORISED = 4401;
const MOST_KNOWN_IDS = 500; // What the server takes in one `resume`.

export class InboxSocket {
  /**
   * @param {{token: string, tokenUrl: string, subprotocol: string, since: string}} options `since`: the time that the
   *   page's own entries are complete up to.
   * @param {{onFrame: (frame: object) => void, onState: (state: string) => void, onOpen: () => void, known: () => string[]}} page
   */
  constructor(options, page) {
    this.options = options;
    this.page = page;
    this.token = options.token;
    this.since = options.since;
    this.failures = 0;
    this.socket = null;
    this.timer = null;
    addEventListener("online", () => this.#again(0));
    addEventListener("offline", () => this.socket?.close());
  }

  connect() {
    this.page.onState("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/inbox/`, [this.options.subprotocol, this.token]);
    this.socket = socket;
    socket.onopen = () => {
      this.send({ type: "resume", since: this.since, known: this.page.known().slice(0, MOST_KNOWN_IDS) });
      this.page.onOpen();
    };
    socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    socket.onclose = (closed) => this.#closed(socket, closed.code);
  }

  /** Sends a frame. What cannot be sent now is asked for again by whoever sees the page. */
  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  #receive(frame) {
    // The first frame says that the server has registered us: only now is the connection worth its name.
    this.failures = 0;
    this.page.onState("live");
    if (frame.type === "notification.created" && frame.created_at > this.since) this.since = frame.created_at;
    this.page.onFrame(frame);
  }

  async #closed(socket, code) {
    if (socket !== this.socket) return;
    this.socket = null;
    this.page.onState("offline");
    if (code === UNAUTHORISED) await this.#renewToken();
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.failures++);
    // With jitter, so that thousands of pages do not come back at the same moment.
    this.#again(longest / 2 + Math.random() * (longest / 2));
  }

  #again(pauseMs) {
    if (this.socket) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), pauseMs);
  }

  async #renewToken() {
    try {
      const answer = await fetch(this.options.tokenUrl, { cache: "no-store" });
      if (answer.ok) this.token = (await answer.json()).token;
    } catch (error) {
      console.warn("No new token yet; trying again.", error);
    }
  }
}
