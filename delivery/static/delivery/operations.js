// Renews the operations page every few seconds, while somebody looks at it.
"use strict";

const EVERY_MS = 5000;
const place = document.getElementById("operations");

async function renew() {
  if (!document.hidden) {
    try {
      const answer = await fetch(place.dataset.url, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const scrolled = [...place.querySelectorAll(".ops-scroll")].map((one) => one.scrollLeft);
      place.innerHTML = await answer.text();
      place.querySelectorAll(".ops-scroll").forEach((one, n) => { one.scrollLeft = scrolled[n] || 0; });
      place.classList.remove("ops-stale");
    } catch {
      place.classList.add("ops-stale"); // What is shown is old; the time on it says how old.
    }
  }
  setTimeout(renew, EVERY_MS);
}

setTimeout(renew, EVERY_MS);
