// <notifyhub-inbox>: a follower's inbox as one tag, without dependencies.
//
//   <script type="module" src="https://notifyhub.example/static/notifications/notifyhub-inbox.js"></script>
//   <notifyhub-inbox base="https://notifyhub.example" token-url="/my-backend/notifyhub-token"></notifyhub-inbox>
//
// Attributes: base (NotifyHub's address; this page's own by default), theme (auto, light or dark), open (the panel is),
// and one of token (a follower token) and token-url (answers {"token": …}; asked again whenever a token has run out).
// Property: tokenProvider, an async function that returns a token, in place of both.
// Events: notifyhub-alert (detail: the entry), notifyhub-unread (detail: {count}), notifyhub-token-needed.
//
// The list comes over REST; what changes comes over the socket, on every tab and device of the follower alike, also what
// has changed while the line was down. What a person does meanwhile is sent when it is back. Data is only ever set as
// text.

const PAGE = 20;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const PING_EVERY_MS = 25_000;
const PONG_WITHIN_MS = 10_000;
const MOST_KNOWN_IDS = 500; // What the server takes in one `resume`.
const URGENT_MS = 60_000;
const FADE_MS = 600;
const SUBPROTOCOL = "notifyhub.v1";
const UNAUTHORISED = 4401;
const FORBIDDEN = 4403;
const EXITS = new Set(["CLOSE", "REDUCE"]);

const ICONS = {
  bell: "M18 9a6 6 0 1 0-12 0c0 6-2.5 7.5-2.5 7.5h17S18 15 18 9M10.2 20a2 2 0 0 0 3.6 0",
  check: "m5 12.5 4.5 4.5L19 7.5",
  dot: "M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7",
  archive: "M4 5h16v4H4zM5.5 9v10h13V9M10 13h4",
  close: "m6 6 12 12M18 6 6 18",
  chevron: "m8 10 4 4 4-4",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16m0 3.5V12l3 2",
};

// --- The line to the server -------------------------------------------------------------------------------------------
class TokenNeeded extends Error {}

/** The follower's token: given, or fetched; fetched anew once the server has refused it. */
class Tokens {
  constructor(element) {
    this.element = element;
    this.current = "";
    this.refused = new Set();
  }

  /** Everybody who asks meanwhile is given the same one. */
  get() {
    this.asked ??= this.#get().finally(() => (this.asked = null));
    return this.asked;
  }

  async #get() {
    if (this.current) return this.current;
    const token = await this.#fresh();
    if (!token || this.refused.has(token)) throw new TokenNeeded("A new follower token is needed.");
    this.current = token;
    return token;
  }

  /** The server said that the token is no longer good. */
  refuse(token) {
    if (token) this.refused.add(token);
    if (this.current === token) this.current = "";
  }

  async #fresh() {
    if (this.element.tokenProvider) return this.element.tokenProvider();
    const url = this.element.getAttribute("token-url");
    if (!url) return this.element.getAttribute("token");
    const answer = await fetch(url, { cache: "no-store", credentials: "same-origin" });
    if (answer.status === 401 || answer.status === 403) throw new TokenNeeded("The page's own session has ended.");
    if (!answer.ok) throw new Error(`No token: HTTP ${answer.status}`);
    return (await answer.json()).token;
  }
}

class Api {
  constructor(base, tokens) {
    this.base = base;
    this.tokens = tokens;
  }

  /** A page of entries; `next` is the address that the page before gave. Its host is not used: a proxy may hide it. */
  async page(next) {
    const cursor = next && new URL(next).searchParams.get("cursor");
    return this.#get(`inbox/?${new URLSearchParams({ limit: PAGE, ...(cursor && { cursor }) })}`);
  }

  async count() {
    return (await this.#get("inbox/count")).unread;
  }

  async detail(id) {
    return this.#get(`inbox/${encodeURIComponent(id)}`);
  }

  async #get(path, isAgain = false) {
    const token = await this.tokens.get();
    const answer = await fetch(new URL(`/api/v1/${path}`, this.base), {
      headers: { authorization: `Bearer ${token}`, accept: "application/json" },
      cache: "no-store",
    });
    if (answer.status === 401) {
      this.tokens.refuse(token);
      if (!isAgain) return this.#get(path, true);
    }
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return answer.json();
  }
}

/** The socket: opens, resumes, notices a dead line, and comes back by itself with growing, uneven pauses. */
class Line {
  /** @param page {{onReady, onFrame, onState, resume}}: `resume()` gives the frame to begin with, or null. */
  constructor(base, tokens, page) {
    this.url = new URL("/ws/inbox/", base);
    this.url.protocol = this.url.protocol === "https:" ? "wss:" : "ws:";
    this.tokens = tokens;
    this.page = page;
    this.failures = 0;
    this.waiting = []; // Frames for when the line is back.
    this.isOver = false;
    this.abort = new AbortController();
    addEventListener("online", () => this.again(0), { signal: this.abort.signal });
    addEventListener("offline", () => this.socket?.close(), { signal: this.abort.signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.again(0), { signal: this.abort.signal });
  }

  async connect() {
    if (this.socket || this.isOver) return;
    this.page.onState("connecting");
    let token;
    try {
      this.socket = "opening"; // So that nobody opens a second one meanwhile.
      token = await this.tokens.get();
    } catch (error) {
      this.socket = null;
      if (error instanceof TokenNeeded) return this.page.onState("token");
      return this.#failed();
    }
    if (this.isOver) return;
    const socket = new WebSocket(this.url, [SUBPROTOCOL, token]);
    this.socket = socket;
    socket.onopen = () => this.#opened(socket);
    socket.onmessage = (message) => this.#received(JSON.parse(message.data));
    socket.onclose = ({ code }) => this.#closed(socket, code, token);
  }

  /** Sends a frame now, or when the line is back. */
  send(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
    else this.waiting.push(frame);
  }

  again(pauseMs) {
    if (this.socket || this.isOver) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), pauseMs);
  }

  end() {
    this.isOver = true;
    this.abort.abort();
    clearTimeout(this.timer);
    clearInterval(this.pings);
    if (this.socket instanceof WebSocket) this.socket.close();
  }

  #opened(socket) {
    this.send({ type: "ping" }); // Its answer also tells the server's time.
    for (const frame of this.waiting.splice(0)) this.send(frame);
    const resume = this.page.resume(); // After what was done meanwhile, so that its answer knows of it.
    if (resume) this.send(resume);
    this.isReady = false;
    clearInterval(this.pings);
    this.pings = setInterval(() => this.#ping(socket), PING_EVERY_MS);
  }

  #ping(socket) {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send('{"type":"ping"}');
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      socket.close();
      this.#closed(socket, 0, ""); // On a dead line the browser's own event comes only after a minute.
    }, PONG_WITHIN_MS);
  }

  #received(frame) {
    clearTimeout(this.silence);
    this.page.onFrame(frame);
    if (this.isReady || frame.type !== "unread_count.changed") return;
    // The first count says that from now on we hear everything.
    this.isReady = true;
    this.failures = 0;
    this.page.onState("live");
    this.page.onReady();
  }

  #closed(socket, code, token) {
    if (socket !== this.socket) return;
    this.socket = null;
    clearInterval(this.pings);
    clearTimeout(this.silence);
    if (this.isOver) return;
    if (code === UNAUTHORISED) this.tokens.refuse(token);
    if (code === FORBIDDEN) return this.page.onState("forbidden");
    this.#failed();
  }

  #failed() {
    this.page.onState("offline");
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.failures++);
    this.again(longest / 2 + Math.random() * (longest / 2));
  }
}

// --- Words ------------------------------------------------------------------------------------------------------------
const STATES = {
  connecting: "Connecting…",
  live: "Live",
  offline: "Reconnecting…",
  token: "Sign in again to see new alerts",
  forbidden: "The inbox cannot be opened here",
};

/** 1234567.5 → 1,234,567.5, as text: a quantity may have more digits than a JavaScript number keeps. */
function grouped(text) {
  const [whole, fraction] = String(text).split(".");
  const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction ? `${marked}.${fraction}` : marked;
}

function left(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left`;
  const hours = Math.floor(seconds / 3_600);
  return `${hours} h ${String(Math.floor((seconds % 3_600) / 60)).padStart(2, "0")} min left`;
}

function ago(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  return minutes < 1_440 ? `${Math.floor(minutes / 60)} h ago` : `${Math.floor(minutes / 1_440)} d ago`;
}

/** What an alert asks for: {tone, label, headline, price, quantityLabel, quantity}. */
function words({ payload }) {
  const isExit = EXITS.has(payload.action);
  const side = payload.side === "SELL" ? "Sell" : "Buy";
  const said = {
    tone: isExit ? "exit" : payload.side ? side.toLowerCase() : "info",
    label: isExit ? "EXIT" : payload.side ?? "NEWS",
    headline: payload.symbol ?? payload.title ?? "",
    price: payload.price ? `${grouped(payload.price)} ${payload.currency ?? ""}`.trim() : "",
    quantityLabel: "",
    quantity: "",
  };
  if (isExit && payload.exit_fraction) {
    // An exit says which share of one's own holding to give up; the quantity is only an estimate then.
    const share = Number(payload.exit_fraction);
    said.quantityLabel = `${side} of holding`;
    said.quantity = share === 1 ? "All" : `${Math.floor(share * 10_000) / 100} %`;
  } else if (payload.suggested_qty) {
    said.quantityLabel = isExit ? `${side} about` : "Your quantity";
    said.quantity = grouped(payload.suggested_qty);
  }
  return said;
}

// --- Making elements --------------------------------------------------------------------------------------------------
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function iconButton(name, label, onclick, className = "") {
  return make("button", { type: "button", class: `icon ${className}`, "aria-label": label, title: label, onclick }, icon(name));
}

// --- The element ------------------------------------------------------------------------------------------------------
class NotifyHubInbox extends HTMLElement {
  static observedAttributes = ["base", "token", "token-url", "open"];

  /** Async function that returns a follower token. */
  #tokenProvider = null;
  /** Id → {id, created_at, expires_at, read_at, payload, element, …}. */
  #entries = new Map();
  #gone = new Set(); // Ids that left: a late answer must not bring them back.
  #acknowledged = new Set(); // `${event} ${id}`
  /** An alert is seen when half of it is in view; in a closed panel or a hidden tab nothing is. */
  #inView = new IntersectionObserver((changes) => changes.forEach((change) => change.isIntersecting && this.#seen(change.target)), { threshold: 0.5 });
  #unread = 0;
  #next = null;
  #isLoading = false; // The next page.
  #isLoaded = false;
  #hasResumed = false; // On the present line: what was missed comes by itself.
  #isSyncing = false;
  #mustSync = false;
  #failures = 0;
  #changes = 0; // Counts what was told or done, so that a slow answer does not undo it.
  #counted = 0; // The change that the unread count is of.
  #clockAhead = 0; // The server's clock decides what is still valid; this one may be wrong by minutes.
  #parts = {};

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [SHEET];
    this.#build();
  }

  get tokenProvider() {
    return this.#tokenProvider;
  }

  set tokenProvider(provider) {
    this.#tokenProvider = provider;
    this.#restart();
  }

  get unread() {
    return this.#unread;
  }

  connectedCallback() {
    if (Object.hasOwn(this, "tokenProvider")) {
      // Set before this module had loaded.
      const provider = this.tokenProvider;
      delete this.tokenProvider;
      this.#tokenProvider = provider;
    }
    this.outside = new AbortController();
    const { signal } = this.outside;
    document.addEventListener("pointerdown", (event) => this.#pressedOutside(event), { signal });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#close(), { signal });
    this.#start();
  }

  disconnectedCallback() {
    this.outside.abort();
    this.#stop();
  }

  attributeChangedCallback(name, before, after) {
    if (name === "open") this.#showPanel();
    else if (before !== after) this.#restart();
  }

  #start() {
    const isAble = this.#tokenProvider || this.hasAttribute("token") || this.hasAttribute("token-url");
    if (this.line || !this.isConnected || !isAble) return;
    const base = new URL(this.getAttribute("base") || "/", document.baseURI);
    this.tokens = new Tokens(this);
    this.api = new Api(base, this.tokens);
    this.line = new Line(base, this.tokens, {
      onReady: () => (this.#isLoaded && this.#hasResumed) || this.#sync(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state) => this.#setState(state),
      resume: () => this.#resume(),
    });
    this.since = "";
    this.clock = setInterval(() => this.#tick(), 1_000);
    this.line.connect();
    this.#sync();
  }

  #stop() {
    this.line?.end();
    this.line = null;
    clearInterval(this.clock);
    clearTimeout(this.retry);
    this.#inView.disconnect();
    for (const entry of this.#entries.values()) entry.element.remove();
    this.#entries.clear();
    this.#gone.clear();
    this.#next = null;
    this.#isLoaded = this.#isLoading = false;
    this.#parts.skeleton.hidden = false;
  }

  #restart() {
    if (!this.isConnected) return;
    this.#stop();
    this.#start();
  }

  // --- Building -------------------------------------------------------------------------------------------------------
  #build() {
    const parts = this.#parts;
    parts.badge = make("span", { class: "badge", part: "badge", "aria-hidden": "true", hidden: true });
    parts.bell = make(
      "button",
      { type: "button", class: "bell", part: "bell", "aria-haspopup": "dialog", "aria-expanded": "false", "aria-controls": "panel", onclick: () => this.toggleAttribute("open") },
      icon("bell"),
      parts.badge,
    );
    parts.state = make("span", { class: "state", "data-state": "connecting", role: "status" }, make("i", { "aria-hidden": "true" }), make("span"));
    parts.readAll = make("button", { type: "button", class: "text", hidden: true, onclick: () => this.#readAll() }, "Mark all read");
    parts.count = make("span", { class: "count" });
    parts.feed = make("div", { class: "feed", role: "feed", "aria-label": "Alerts, newest first", "aria-busy": "true" });
    parts.more = make("div", { class: "more", hidden: true }, make("span", { class: "spinner", "aria-hidden": "true" }), "Loading older alerts");
    parts.empty = make(
      "div",
      { class: "empty", hidden: true },
      make("span", { class: "halo" }, icon("bell")),
      make("strong", {}, "You’re all caught up"),
      make("p", {}, "When a trader you follow trades, the alert appears here within a second."),
    );
    parts.skeleton = make("div", { class: "skeleton", "aria-hidden": "true" }, make("i"), make("i"), make("i"));
    parts.scroll = make("div", { class: "scroll", tabindex: "-1" }, parts.skeleton, parts.feed, parts.empty, parts.more);
    parts.announce = make("div", { class: "unseen", "aria-live": "polite" });
    parts.panel = make(
      "section",
      { class: "panel", id: "panel", part: "panel", role: "dialog", "aria-label": "Trade alerts", hidden: true },
      make(
        "header",
        {},
        make("div", { class: "top" }, make("h2", {}, "Alerts"), parts.count, parts.readAll, iconButton("close", "Close", () => this.#close(), "close")),
        parts.state,
      ),
      parts.scroll,
    );
    this.shadowRoot.append(parts.bell, parts.panel, parts.announce);
    this.shadowRoot.addEventListener("keydown", (event) => this.#key(event));
    // Older entries are fetched a screen before they are reached.
    new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && this.#loadMore(), {
      root: parts.scroll,
      rootMargin: "0px 0px 400px",
    }).observe(parts.more);
    this.#setUnread(0);
    this.#setState("connecting");
  }

  #entryElement(entry) {
    const { tone, label, headline, price, quantityLabel, quantity } = words(entry);
    const { id, payload, created_at } = entry;
    const isCritical = payload.priority === "critical";
    const parts = {
      left: make("span", { class: "left" }),
      bar: make("i"),
      ago: make("time", { datetime: created_at }),
      read: iconButton("check", "Mark as read", () => this.#toggleRead(id)),
    };
    const why = quantity
      ? make("button", { type: "button", class: "why", "aria-expanded": "false", "aria-controls": `why-${id}`, onclick: () => this.#explain(id) }, "Why this quantity?", icon("chevron"))
      : null;
    const body = tone === "info" ? payload.body : null;
    const element = make(
      "article",
      { class: "entry", "data-id": id, "data-tone": tone, tabindex: "-1", "aria-labelledby": `title-${id}`, "aria-describedby": `meta-${id}` },
      make(
        "div",
        { class: "row" },
        make(
          "div",
          { class: "what" },
          make(
            "div",
            { class: "line", id: `title-${id}` },
            make("span", { class: "chip" }, label),
            make("strong", { class: "symbol" }, headline),
          ),
          make(
            "div",
            { class: "price" },
            isCritical ? make("span", { class: "critical" }, "Critical") : null,
            price ? make("b", {}, price) : null,
            parts.ago,
          ),
          body ? make("p", { class: "body" }, body) : null,
        ),
        quantity
          ? make("div", { class: "quantity" }, make("span", {}, quantityLabel), make("b", {}, quantity))
          : null,
      ),
      make(
        "div",
        { class: "foot" },
        make("span", { class: "meta", id: `meta-${id}` }, icon("clock"), parts.left),
        why,
        make("span", { class: "actions" }, parts.read, iconButton("archive", "Archive", () => this.#archive(id))),
      ),
      make("div", { class: "explanation", id: `why-${id}`, hidden: true }),
      make("div", { class: "track", "aria-hidden": "true" }, parts.bar),
    );
    element.addEventListener("click", (event) => event.target.closest("button") || this.#open(id));
    return Object.assign(entry, { element, parts, why });
  }

  // --- The list -------------------------------------------------------------------------------------------------------
  /** Fetches what is stored: at the start, and once more when the line is up, for what came in between. */
  async #sync() {
    this.#mustSync = true;
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    const line = this.line;
    try {
      while (this.#mustSync && line === this.line) {
        this.#mustSync = false;
        const asked = this.#changes;
        const [page, count] = await Promise.all([this.api.page(), this.api.count()]);
        if (line === this.line) this.#synced(page, count, asked);
      }
    } catch (error) {
      this.#loadAgain(() => this.#sync(), error);
    } finally {
      this.#isSyncing = false;
    }
    if (this.line && line !== this.line) this.#sync();
  }

  /** What has changed since it was `asked` for is newer than the answer. */
  #synced(page, count, asked) {
    if (!this.#isLoaded) this.#next = page.next;
    page.results.forEach((entry) => this.#show(entry, false, asked));
    if (this.#counted <= asked) this.#setUnread(count);
    this.#failures = 0;
    this.#isLoaded = true;
    this.#parts.skeleton.hidden = true;
    this.#parts.feed.setAttribute("aria-busy", "false");
    this.#update();
  }

  #loadAgain(load, error) {
    if (!this.line || error instanceof TokenNeeded) return;
    clearTimeout(this.retry);
    const longest = Math.min(LONGEST_PAUSE_MS, 1_000 * 2 ** this.#failures++);
    this.retry = setTimeout(load, longest / 2 + Math.random() * (longest / 2));
  }

  async #loadMore() {
    if (!this.#next || this.#isLoading) return;
    this.#isLoading = true;
    try {
      const page = await this.api.page(this.#next);
      this.#next = page.next;
      page.results.forEach((entry) => this.#show(entry, false));
      this.#failures = 0;
    } catch (error) {
      this.#loadAgain(() => this.#loadMore(), error);
    } finally {
      this.#isLoading = false;
      this.#update();
    }
  }

  #show(entry, isArriving, asked = this.#changes) {
    if (this.#gone.has(entry.id) || Date.parse(entry.expires_at) <= this.#now()) return false;
    if (entry.created_at > this.since) this.since = entry.created_at;
    const known = this.#entries.get(entry.id);
    if (known) {
      if (known.changed <= asked) this.#setRead(known, entry.read_at);
      return false;
    }
    const { id, created_at, expires_at, read_at, payload } = entry;
    const shown = this.#entryElement({ id, created_at, expires_at, read_at, payload, changed: 0 });
    this.#entries.set(id, shown);
    shown.element.classList.toggle("arriving", isArriving);
    const older = [...this.#parts.feed.children].find((other) => this.#isNewer(shown, this.#entries.get(other.dataset.id)));
    this.#parts.feed.insertBefore(shown.element, older ?? null);
    this.#setRead(shown, read_at);
    if (!read_at) {
      this.#acknowledge(id, "received");
      this.#inView.observe(shown.element);
    }
    return true;
  }

  /** Tells once what became of an alert here. */
  #acknowledge(id, event) {
    const said = `${event} ${id}`;
    if (this.#acknowledged.has(said)) return;
    this.#acknowledged.add(said);
    this.line.send({ type: "ack", id, event });
  }

  #seen(element) {
    this.#inView.unobserve(element);
    this.#acknowledge(element.dataset.id, "seen");
  }

  #isNewer(entry, other) {
    return !other || entry.created_at > other.created_at || (entry.created_at === other.created_at && entry.id > other.id);
  }

  #remove(id, isFading) {
    this.#gone.add(id);
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#entries.delete(id);
    const { element } = entry;
    this.#inView.unobserve(element);
    const hadFocus = element.contains(this.shadowRoot.activeElement);
    const neighbour = element.nextElementSibling ?? element.previousElementSibling;
    element.inert = true;
    const end = () => {
      element.remove();
      this.#update();
    };
    if (isFading && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      element.style.height = `${element.offsetHeight}px`;
      element.offsetHeight; // So that the height is where the transition begins.
      element.classList.add("leaving");
      setTimeout(end, FADE_MS);
    } else end();
    if (hadFocus) (neighbour ?? this.#parts.scroll).focus();
    this.#update();
  }

  #receive(frame) {
    this.#changes++;
    switch (frame.type) {
      case "notification.created":
        if (this.#show(frame, true)) this.#arrived(this.#entries.get(frame.id));
        break;
      case "notification.updated":
        if (this.#entries.has(frame.id)) this.#setRead(this.#entries.get(frame.id), frame.read_at);
        break;
      case "notification.removed":
        this.#remove(frame.id, true);
        break;
      case "unread_count.changed":
        this.#setUnread(frame.count);
        break;
      case "pong":
        this.#clockAhead = Date.now() - Date.parse(frame.now);
        break;
      case "error":
        console.warn("NotifyHub refused a frame.", frame);
        if (frame.code === "unavailable") this.#sync(); // What a person did may be what was refused.
    }
    this.#update();
  }

  #arrived(entry) {
    this.#parts.announce.textContent = `New alert. ${entry.payload.title ?? entry.payload.symbol ?? ""}`;
    this.#parts.bell.classList.remove("ringing");
    this.#parts.bell.offsetWidth; // So that the animation starts anew.
    this.#parts.bell.classList.add("ringing");
    const { id, created_at, expires_at, payload } = entry;
    this.#emit("notifyhub-alert", { id, created_at, expires_at, payload });
  }

  #resume() {
    this.#hasResumed = Boolean(this.since);
    if (!this.#hasResumed) return null;
    const newest = [...this.#entries.values()].sort((one, other) => (this.#isNewer(one, other) ? -1 : 1));
    return { type: "resume", since: this.since, known: newest.slice(0, MOST_KNOWN_IDS).map(({ id }) => id) };
  }

  // --- What a person does ---------------------------------------------------------------------------------------------
  #markRead(id) {
    const entry = this.#entries.get(id);
    if (!entry || entry.read_at) return;
    this.#changes++;
    this.#setRead(entry, new Date(this.#now()).toISOString());
    this.#setUnread(this.#unread - 1);
    this.line.send({ type: "read", id });
  }

  #open(id) {
    this.#acknowledge(id, "opened");
    this.#markRead(id);
  }

  #toggleRead(id) {
    this.#changes++;
    const entry = this.#entries.get(id);
    if (!entry.read_at) return this.#markRead(id);
    this.#setRead(entry, null);
    this.#setUnread(this.#unread + 1);
    this.line.send({ type: "unread", id });
  }

  #archive(id) {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#changes++;
    if (!entry.read_at) this.#setUnread(this.#unread - 1);
    this.#remove(id, true);
    this.line.send({ type: "archive", id });
  }

  #readAll() {
    this.#changes++;
    const at = new Date(this.#now()).toISOString();
    for (const entry of this.#entries.values()) if (!entry.read_at) this.#setRead(entry, at);
    this.#setUnread(0);
    this.line.send({ type: "read_all" });
    this.#parts.scroll.focus();
  }

  async #explain(id) {
    const { element, why } = this.#entries.get(id);
    const box = element.querySelector(".explanation");
    const isOpening = box.hidden;
    box.hidden = !isOpening;
    why.setAttribute("aria-expanded", String(isOpening));
    this.#open(id);
    if (!isOpening || box.childElementCount) return;
    box.replaceChildren(make("span", { class: "spinner", "aria-hidden": "true" }), "Working it out");
    try {
      box.replaceChildren(...explanation(await this.api.detail(id)));
    } catch {
      box.replaceChildren("That could not be loaded just now. Close and open it to try again.");
    }
  }

  // --- Showing --------------------------------------------------------------------------------------------------------
  #setRead(entry, readAt) {
    entry.changed = this.#changes;
    entry.read_at = readAt ?? null;
    const isRead = Boolean(readAt);
    entry.element.classList.toggle("read", isRead);
    const label = isRead ? "Mark as unread" : "Mark as read";
    entry.parts.read.setAttribute("aria-label", label);
    entry.parts.read.title = label;
    entry.parts.read.replaceChildren(icon(isRead ? "dot" : "check"));
  }

  #setUnread(count) {
    const before = this.#unread;
    this.#counted = this.#changes;
    this.#unread = Math.max(0, count);
    const { badge, bell, readAll, count: text } = this.#parts;
    badge.textContent = this.#unread > 99 ? "99+" : String(this.#unread);
    badge.hidden = readAll.hidden = text.hidden = this.#unread === 0;
    text.textContent = `${this.#unread} new`;
    bell.setAttribute("aria-label", this.#unread ? `Alerts, ${this.#unread} unread` : "Alerts");
    if (before !== this.#unread) this.#emit("notifyhub-unread", { count: this.#unread });
  }

  #setState(state) {
    const { state: element } = this.#parts;
    if (state === "token" && element.dataset.state !== "token") this.#emit("notifyhub-token-needed", {});
    if (element.dataset.state === state && element.lastChild.textContent) return;
    element.dataset.state = state;
    element.lastChild.textContent = STATES[state];
  }

  #update() {
    const { feed, empty, more } = this.#parts;
    empty.hidden = !this.#isLoaded || this.#entries.size > 0 || Boolean(this.#next);
    more.hidden = !this.#isLoaded || !this.#next;
    const articles = [...feed.children].filter((element) => !element.inert);
    articles.forEach((element, index) => {
      element.setAttribute("aria-posinset", index + 1);
      element.setAttribute("aria-setsize", this.#next ? -1 : articles.length);
    });
    // One stop for Tab; the arrow keys go on from there.
    if (articles.length && !articles.some((element) => element.tabIndex === 0)) articles[0].tabIndex = 0;
    this.#tick();
  }

  #tick() {
    const at = this.#now();
    for (const [id, { parts, element, created_at, expires_at, read_at }] of this.#entries) {
      const ends = Date.parse(expires_at);
      const rest = ends - at;
      if (rest <= 0) {
        if (!read_at) this.#setUnread(this.#unread - 1); // The server counts it no more, but sends no frame.
        this.#remove(id, true);
        continue;
      }
      const began = Date.parse(created_at);
      parts.left.textContent = left(rest);
      parts.ago.textContent = ago(at - began);
      parts.bar.style.transform = `scaleX(${Math.min(1, rest / Math.max(1, ends - began))})`;
      element.classList.toggle("urgent", rest < URGENT_MS);
    }
  }

  #now() {
    return Date.now() - this.#clockAhead;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }

  // --- The panel and its keys -----------------------------------------------------------------------------------------
  #showPanel() {
    const isOpen = this.hasAttribute("open");
    this.#parts.panel.hidden = !isOpen;
    this.#parts.bell.setAttribute("aria-expanded", String(isOpen));
    if (isOpen && this.shadowRoot.activeElement === this.#parts.bell) this.#focusEntry(0);
  }

  #close() {
    if (!this.hasAttribute("open")) return;
    const hadFocus = this.#parts.panel.contains(this.shadowRoot.activeElement);
    this.removeAttribute("open");
    if (hadFocus) this.#parts.bell.focus();
  }

  #pressedOutside(event) {
    if (this.hasAttribute("open") && !event.composedPath().includes(this)) {
      this.removeAttribute("open");
    }
  }

  #articles() {
    return [...this.#parts.feed.children].filter((element) => !element.inert);
  }

  #focusEntry(index) {
    const articles = this.#articles();
    const chosen = articles[Math.max(0, Math.min(articles.length - 1, index))];
    if (!chosen) return this.#parts.scroll.focus();
    for (const element of articles) element.tabIndex = element === chosen ? 0 : -1;
    chosen.focus();
    chosen.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const focused = this.shadowRoot.activeElement;
    if (!this.#parts.scroll.contains(focused)) return;
    const index = this.#articles().indexOf(focused.closest("article"));
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: Infinity };
    if (event.key in moves) {
      event.preventDefault();
      this.#focusEntry(moves[event.key]);
    } else if (focused.matches("article")) {
      const { id } = focused.dataset;
      if (event.key === "Enter") this.#entries.get(id)?.why ? this.#explain(id) : this.#open(id);
      else if (event.key === "Delete") this.#archive(id);
      else return;
      event.preventDefault();
    }
  }
}

/** How the quantity was worked out, as the detail call explains it: a text, sentences, or a summary with steps. */
function explanation({ explanation: given }) {
  if (typeof given === "string") return [make("p", {}, given)];
  if (Array.isArray(given)) return given.map((sentence) => make("p", {}, sentence));
  const list = make("ol", {});
  for (const { label, value } of given.steps) list.append(make("li", {}, make("span", {}, label), make("b", {}, grouped(value))));
  return [make("p", {}, given.summary), list];
}

// --- Looks ------------------------------------------------------------------------------------------------------------
const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
:host {
  color-scheme: light dark; display: inline-block; position: relative; text-align: start;
  --surface: light-dark(#fff, #151b28); --raised: light-dark(#f6f7fb, #1c2434); --line: light-dark(#e6e9f1, #283144);
  --text: light-dark(#141a29, #eef1f8); --muted: light-dark(#5a6478, #9aa5bc); --accent: light-dark(#4f46e5, #9a9bff);
  --buy: light-dark(#08774a, #4ade9c); --buy-soft: light-dark(#e0f5eb, #10301f);
  --sell: light-dark(#bb1c39, #ff8598); --sell-soft: light-dark(#fde7eb, #3b1620);
  --exit: light-dark(#96500a, #fcbc66); --exit-soft: light-dark(#fdf0dc, #36250e);
  --info: light-dark(#3f4cc7, #a5abff); --info-soft: light-dark(#e9ebfd, #20264a);
  --shadow: light-dark(0 2px 6px rgb(18 24 48 / 6%), 0 0 0 1px rgb(0 0 0 / 40%));
  --shadow-far: light-dark(0 18px 48px -12px rgb(18 24 48 / 24%), 0 18px 48px -8px rgb(0 0 0 / 70%));
  font: 400 14px/1.45 var(--notifyhub-font, Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif);
  color: var(--text); -webkit-font-smoothing: antialiased;
}
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
h2, p, ol { margin: 0; padding: 0; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
svg { width: 1.25em; height: 1.25em; fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; flex: none; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.scroll:focus-visible { outline-offset: -2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.bell { position: relative; display: grid; place-items: center; width: 42px; height: 42px; border-radius: 12px; font-size: 18px; }
.bell:hover, .bell[aria-expanded="true"] { background: light-dark(rgb(20 26 41 / 7%), rgb(238 241 248 / 10%)); }
.badge {
  position: absolute; top: 2px; inset-inline-start: calc(50% + 1px); min-width: 18px; padding: 0 5px; border-radius: 9px;
  background: light-dark(#d9234a, #f43f62); color: #fff; font-size: 11px; font-weight: 700; line-height: 18px; text-align: center;
  font-variant-numeric: tabular-nums; box-shadow: 0 0 0 2px var(--surface);
}

.panel {
  position: absolute; z-index: 1000; top: calc(100% + 16px); inset-inline-end: 0; display: flex; flex-direction: column;
  width: 424px; max-height: min(680px, calc(100vh - 96px)); border: 1px solid var(--line); border-radius: 18px;
  background: var(--surface); box-shadow: var(--shadow-far); overflow: hidden;
}
header { padding: 16px 14px 12px 20px; border-bottom: 1px solid var(--line); }
.top { display: flex; align-items: center; gap: 10px; }
h2 { font-size: 18px; font-weight: 680; letter-spacing: -.015em; line-height: 32px; }
.count { padding: 1px 8px; border-radius: 10px; background: var(--info-soft); color: var(--info); font-size: 12px; font-weight: 650; font-variant-numeric: tabular-nums; }
.text { margin-inline-start: auto; padding: 6px 8px; border-radius: 8px; color: var(--accent); font-size: 13px; font-weight: 600; }
.text:hover { background: var(--raised); }
.text[hidden] + .close { margin-inline-start: auto; }
.state { display: flex; align-items: center; gap: 8px; margin-top: 1px; color: var(--muted); font-size: 12.5px; }
.state i { width: 7px; height: 7px; border-radius: 50%; background: var(--exit); }
.state[data-state="live"] i { background: var(--buy); box-shadow: 0 0 0 3px var(--buy-soft); }
.state[data-state="token"] i, .state[data-state="forbidden"] i { background: var(--sell); }
.icon { display: grid; place-items: center; width: 30px; height: 30px; border-radius: 8px; color: var(--muted); font-size: 15px; }
.icon:hover { background: var(--raised); color: var(--text); }

.scroll { flex: 1; min-height: 220px; overflow-y: auto; overscroll-behavior: contain; scrollbar-width: thin; scrollbar-color: var(--line) transparent; }
.entry {
  position: relative; padding: 15px 20px 11px; border-bottom: 1px solid var(--line); cursor: default;
  --tone: var(--buy); --soft: var(--buy-soft);
}
.entry[data-tone="sell"] { --tone: var(--sell); --soft: var(--sell-soft); }
.entry[data-tone="exit"] { --tone: var(--exit); --soft: var(--exit-soft); }
.entry[data-tone="info"] { --tone: var(--info); --soft: var(--info-soft); }
.entry:not(.read)::before { content: ""; position: absolute; top: 24px; inset-inline-start: 7px; width: 6px; height: 6px; border-radius: 50%; background: var(--accent); }
.entry:hover { background: light-dark(#fafbfe, #182030); }
.entry:focus-visible { outline-offset: -3px; border-radius: 10px; }
.row { display: flex; align-items: flex-start; justify-content: space-between; gap: 14px; }
.what { min-width: 0; }
.line { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 9px; }
.chip { padding: 2px 8px; border-radius: 6px; background: var(--soft); color: var(--tone); font-size: 11px; font-weight: 750; line-height: 18px; letter-spacing: .05em; }
.symbol { font-size: 15.5px; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
.read .symbol { font-weight: 550; }
.critical { display: inline-flex; align-items: center; gap: 4px; color: var(--sell); font-size: 12px; font-weight: 650; }
.critical::before { content: "!"; display: grid; place-items: center; width: 14px; height: 14px; border-radius: 50%; background: var(--sell); color: var(--surface); font-size: 10.5px; font-weight: 800; line-height: 1; }
.price { display: flex; flex-wrap: wrap; align-items: center; gap: 0 9px; margin-top: 4px; color: var(--muted); font-size: 13px; }
.price b { color: var(--text); font-size: 13.5px; font-weight: 550; font-variant-numeric: tabular-nums; }
.body { margin-top: 4px; color: var(--muted); }
.quantity { flex: none; text-align: end; }
.quantity span { display: block; color: var(--muted); font-size: 11.5px; line-height: 16px; }
.quantity b { display: block; font-size: 21px; font-weight: 680; line-height: 27px; letter-spacing: -.02em; font-variant-numeric: tabular-nums; color: var(--tone); }
.foot { display: flex; align-items: center; gap: 14px; min-height: 30px; margin-top: 6px; color: var(--muted); font-size: 12.5px; }
.meta { display: inline-flex; align-items: center; gap: 4px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.meta svg { width: 14px; height: 14px; opacity: .75; }
.urgent .left { color: var(--sell); font-weight: 650; }
.why { display: inline-flex; align-items: center; gap: 2px; border-radius: 6px; color: var(--accent); font-weight: 550; white-space: nowrap; }
.why:hover { text-decoration: underline; text-underline-offset: 3px; }
.why svg { width: 15px; height: 15px; }
.why[aria-expanded="true"] svg { transform: rotate(180deg); }
.actions { display: flex; gap: 2px; margin-inline-start: auto; margin-inline-end: -8px; opacity: 0; }
.entry:hover .actions, .entry:focus-within .actions { opacity: 1; }
@media (hover: none) { .actions { opacity: 1; } }
.explanation { margin: 6px 0 6px; padding: 12px 14px; border-radius: 12px; background: var(--raised); font-size: 13px; }
.explanation p { color: var(--text); }
.explanation ol { list-style: none; margin-top: 8px; padding-top: 4px; border-top: 1px solid var(--line); }
.explanation li { display: flex; justify-content: space-between; gap: 16px; padding-top: 4px; color: var(--muted); }
.explanation b { color: var(--text); font-weight: 600; font-variant-numeric: tabular-nums; text-align: end; }
.track { position: absolute; inset: auto 0 -1px 0; height: 2px; overflow: hidden; }
.track i { display: block; height: 100%; background: var(--tone); opacity: .55; transform-origin: left; }
.read .track i { opacity: .25; }

.empty { padding: 56px 40px 64px; color: var(--muted); text-align: center; text-wrap: balance; }
.empty strong { display: block; margin-bottom: 4px; color: var(--text); font-size: 15.5px; font-weight: 650; }
.halo { display: grid; place-items: center; width: 56px; height: 56px; margin: 0 auto 16px; border-radius: 50%; background: var(--info-soft); color: var(--info); font-size: 20px; }
.more { display: flex; align-items: center; justify-content: center; gap: 10px; padding: 18px; color: var(--muted); font-size: 13px; }
.spinner { display: inline-block; width: 14px; height: 14px; margin-inline-end: 8px; border: 2px solid var(--line); border-top-color: var(--accent); border-radius: 50%; vertical-align: -2px; }
.more .spinner { margin: 0; }
.skeleton { display: grid; gap: 14px; padding: 20px; }
.skeleton i { height: 72px; border-radius: 12px; background: var(--raised); }

@media (max-width: 479.9px) {
  .panel { position: fixed; inset: 0; width: auto; max-height: none; border: 0; border-radius: 0; }
  header { padding: max(12px, env(safe-area-inset-top)) 10px 12px 16px; }
  .entry { padding-inline: 18px 16px; }
  .icon { width: 40px; height: 40px; font-size: 17px; }
  .row { flex-wrap: wrap; }
  .what { flex: 1 1 150px; }
  .price b, .quantity { min-width: 0; overflow-wrap: anywhere; }
  .quantity { flex: 0 1 auto; margin-inline-start: auto; }
  .foot { flex-wrap: wrap; gap: 0 14px; min-height: 40px; margin-top: 2px; }
  .actions { gap: 0; }
  .actions { opacity: 1; }
}
@media (prefers-reduced-motion: no-preference) {
  .entry.arriving { animation: arrive .5s ease-out; }
  .entry.leaving { overflow: hidden; height: 0 !important; padding-block: 0; border-color: transparent; opacity: 0; transition: all ${FADE_MS}ms ease; }
  .track i { transition: transform 1s linear; }
  .why svg { transition: transform .15s; }
  .actions { transition: opacity .12s; }
  .bell.ringing svg { animation: ring .6s ease-out; transform-origin: 50% 10%; }
  .spinner { animation: spin .8s linear infinite; }
  .skeleton i, .state[data-state="connecting"] i, .state[data-state="offline"] i { animation: pulse 1.4s ease-in-out infinite; }
  .panel { animation: open .14s ease-out; }
}
@keyframes arrive { from { opacity: 0; transform: translateY(-10px); background: var(--soft); } }
@keyframes open { from { opacity: 0; transform: translateY(-4px); } }
@keyframes ring { 20% { transform: rotate(14deg); } 45% { transform: rotate(-11deg); } 70% { transform: rotate(6deg); } }
@keyframes pulse { 50% { opacity: .4; } }
@keyframes spin { to { transform: rotate(1turn); } }
@media (forced-colors: active) { .chip, .badge, .panel { border: 1px solid; } .track { display: none; } }
`);

customElements.define("notifyhub-inbox", NotifyHubInbox);
