// Shows one follower's inbox: what the page came with, and what the socket brings.

import { InboxSocket } from "./socket.js";

const STATES = { connecting: "Connecting", live: "Live", offline: "Reconnecting" };
const EXITS = new Set(["CLOSE", "REDUCE"]);
const URGENT_MS = 60_000;

const config = JSON.parse(document.getElementById("inbox-config").textContent);
const list = document.getElementById("entries");
const template = document.getElementById("entry-template");
const badge = document.getElementById("unread");
const readAll = document.getElementById("read-all");
const connection = document.getElementById("connection");
const pageTitle = document.title;

/** Id → {frame, element, ends, began}. */
const shown = new Map();
const acknowledged = new Set();
let unread = 0;
// The server's clock decides what is still valid; this one may be wrong by minutes.
const clockAhead = Date.now() - Date.parse(config.now);
const now = () => Date.now() - clockAhead;

function show(frame, isArriving) {
  if (shown.has(frame.id) || Date.parse(frame.expires_at) <= now()) return;
  const element = template.content.firstElementChild.cloneNode(true);
  fill(element, frame);
  element.classList.toggle("arriving", isArriving);
  element.addEventListener("click", () => markRead(frame.id));
  shown.set(frame.id, { frame, element, began: Date.parse(frame.created_at), ends: Date.parse(frame.expires_at) });
  list.insertBefore(element, [...list.children].find((other) => isNewer(frame, other.dataset)) ?? null);
  tick();
}

function isNewer(frame, other) {
  return frame.created_at > other.at || (frame.created_at === other.at && frame.id > other.id);
}

function fill(element, { id, created_at, read_at, payload }) {
  const part = (name) => element.querySelector(`.${name}`);
  const isExit = EXITS.has(payload.action);
  element.dataset.id = id;
  element.dataset.at = created_at;
  element.dataset.tone = isExit ? "exit" : payload.side === "SELL" ? "sell" : "buy";
  element.classList.toggle("read", Boolean(read_at));
  if (!read_at) element.tabIndex = 0;
  part("action").textContent = isExit ? payload.action : payload.side ?? "INFO";
  part("symbol").textContent = payload.symbol ?? payload.title;
  part("price").textContent = payload.price ? `@ ${grouped(payload.price)} ${payload.currency ?? ""}` : "";
  part("body").textContent = payload.body ?? "";
  const [label, value] = quantity(payload, isExit);
  part("quantity-label").textContent = label;
  part("quantity-value").textContent = value;
  const arrived = part("arrived");
  arrived.dateTime = created_at;
  arrived.textContent = new Date(created_at).toLocaleTimeString([], { timeStyle: "medium" });
  part("priority").hidden = payload.priority !== "critical";
  part("priority").textContent = "Critical";
}

/** An exit says which share of one's own holding to give up; the quantity is only an estimate then. */
function quantity(payload, isExit) {
  const verb = payload.side === "SELL" ? "Sell" : "Buy";
  if (isExit && payload.exit_fraction) {
    const share = Number(payload.exit_fraction);
    return [`${verb} of holding`, share === 1 ? "all" : `${Math.floor(share * 10_000) / 100} %`];
  }
  return payload.suggested_qty ? [isExit ? `${verb} about` : "Your quantity", grouped(payload.suggested_qty)] : ["", ""];
}

/** 1234567.5 → 1,234,567.5, as text: a quantity may have more digits than a JavaScript number keeps. */
function grouped(text) {
  const [whole, fraction] = text.split(".");
  const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction ? `${marked}.${fraction}` : marked;
}

function remove(id) {
  shown.get(id)?.element.remove();
  shown.delete(id);
  tick();
}

function acknowledge(id) {
  if (!acknowledged.has(id) && socket.send({ type: "ack", id })) acknowledged.add(id);
}

function markRead(id) {
  const entry = shown.get(id);
  if (!entry || entry.frame.read_at || !socket.send({ type: "read", id })) return;
  entry.frame.read_at = new Date(now()).toISOString();
  entry.element.classList.add("read");
  entry.element.removeAttribute("tabindex");
}

function setUnread(count) {
  unread = count;
  badge.textContent = count;
  badge.hidden = readAll.hidden = count === 0;
  document.title = count ? `(${count}) ${pageTitle}` : pageTitle;
}

function left(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left`;
  const hours = Math.floor(seconds / 3_600);
  return `${hours} h ${String(Math.floor((seconds % 3_600) / 60)).padStart(2, "0")} min`;
}

function tick() {
  const at = now();
  for (const [id, { frame, element, began, ends }] of shown) {
    const rest = ends - at;
    if (rest <= 0) {
      element.remove();
      shown.delete(id);
      if (!frame.read_at) setUnread(Math.max(0, unread - 1)); // The server counts it no more, but sends no frame.
      continue;
    }
    element.querySelector(".left").textContent = left(rest);
    element.querySelector(".track i").style.transform = `scaleX(${Math.min(1, rest / Math.max(1, ends - began))})`;
    element.classList.toggle("urgent", rest < URGENT_MS);
  }
  document.getElementById("empty").hidden = shown.size > 0;
}

const socket = new InboxSocket(
  { ...config, since: config.entries[0]?.created_at ?? config.now },
  {
    known: () => [...shown.keys()],
    // What the page came with has arrived as well.
    onOpen: () => [...shown.keys()].forEach(acknowledge),
    onState(state) {
      connection.dataset.state = state;
      connection.lastElementChild.textContent = STATES[state];
    },
    onFrame(frame) {
      if (frame.type === "notification.created") {
        show(frame, true);
        acknowledge(frame.id);
      } else if (frame.type === "notification.removed") {
        remove(frame.id);
      } else if (frame.type === "unread_count.changed") {
        setUnread(frame.count);
      } else if (frame.type === "error") {
        console.warn("The server refused a frame.", frame);
      }
    },
  },
);

readAll.addEventListener("click", () => shown.forEach((_, id) => markRead(id)));
list.addEventListener("keydown", (event) => {
  if (event.key === "Enter") event.target.closest(".entry")?.click();
});
for (const frame of config.entries) {
  show(frame, false);
}
setUnread(config.unread);
setInterval(tick, 1_000);
socket.connect();
tick();
