// Which page is shown, and the keys that work on every one. Where one is stands after the # of the address.

import { h, add, link, NeedsKey } from "./dom.js";
import { home } from "./home.js";
import { list } from "./list.js";
import { trajectory } from "./trajectory.js";
import { pair } from "./pair.js";
import { compare } from "./compare.js";
import { training } from "./training.js";
import { library, tool } from "./tools.js";

const PAGES = { "": home, run: list, trajectory, pair, compare, training, library, tool };
const KEYS = [
  ["j, k", "next and previous row, or trajectory"], ["Enter", "open"], ["/", "search"], ["x", "mark a row; two marked ones open side by side"],
  ["t", "tokens of a trajectory"], ["u, Escape", "up: from a trajectory to its list"], ["d", "light or dark"], ["?", "these keys"],
];
const page = document.getElementById("page");
const where = document.getElementById("where");
const dialog = document.getElementById("keys");
let current = {};
let turn = 0;

async function show() {
  const mine = ++turn;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/").map(safeDecode);
  const make = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  if (current.leave) current.leave();
  current = {};
  page.replaceChildren(h("p", { class: "quiet" }, "reading …"));
  try {
    if (!make) throw new Error("there is no such page");
    const made = await make(rest, new URLSearchParams(query));
    if (mine !== turn) { if (made.leave) made.leave(); return; }
    current = made;
    page.replaceChildren();
    add(page, made.content);
    where.replaceChildren();
    add(where, made.where || []);
    document.title = [made.title, "toolreason"].filter(Boolean).join(" · ");
    window.scrollTo(0, 0);
    page.focus({ preventScroll: true });
    if (made.shown) made.shown();
  } catch (error) {
    if (mine !== turn) return;
    page.replaceChildren(error instanceof NeedsKey ? askForKey() : h("p", { class: "problem", role: "alert" }, error.message));
  }
}

function safeDecode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function askForKey() {
  const field = h("input", { type: "password", id: "key", autocomplete: "off", "aria-label": "API key" });
  const take = (event) => { event.preventDefault(); sessionStorage.setItem("key", field.value.trim()); show(); };
  return h("form", { class: "card", onsubmit: take }, h("label", { for: "key" }, "This service wants an API key."), field, h("button", {}, "go on"));
}

function theme() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = other;
  try { localStorage.setItem("theme", other); } catch { /* not kept, then */ }
}

function help() {
  dialog.replaceChildren(h("h2", {}, "Keys"), h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", {}, "close")));
  dialog.showModal();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "d") theme();
  else if (event.key === "?") help();
  else if (event.key === "/") { const field = page.querySelector("input[type=search]"); if (!field) return; field.focus(); field.select(); }
  else if ((event.key === "u" || event.key === "Escape") && current.up) location.hash = current.up;
  else if (!(current.key && current.key(event.key))) return;
  event.preventDefault();
});

let kept = null;
try { kept = localStorage.getItem("theme"); } catch { /* as the system says */ }
if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("help").addEventListener("click", help);
addEventListener("hashchange", show);
show();
