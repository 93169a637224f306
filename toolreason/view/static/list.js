// The trajectories of a run: filters, search, rows that come as one scrolls.

import { h, api, link, badge, number } from "./dom.js";

const SORTS = { place: "as written", problem: "problem", tokens: "tokens", calls: "calls", failed: "failed calls", seconds: "seconds", verdict: "verdict", stop: "stop" };
export let remembered = { name: "", places: [] }; // for next and previous, from a trajectory

export async function list([name], query) {
  const state = Object.fromEntries(query);
  const rows = h("tbody");
  const marks = new Map();
  const told = h("p", { class: "quiet", role: "status" });
  const end = h("div", { class: "end" });
  const fields = {};
  let asked = 0, start = 0, count = 0, busy = false, done = false, chosen = -1, left = false;
  remembered = { name, places: [] };

  async function more(fresh) {
    if (left || (busy && !fresh) || (done && !fresh)) return;
    busy = true;
    const mine = fresh ? ++asked : asked;
    if (fresh) start = 0;
    try {
      const found = await api("list", { name, ...state, start });
      if (left || mine !== asked) return;
      if (fresh) { rows.replaceChildren(); remembered.places = []; chosen = -1; facets(found.facets); }
      for (const one of found.rows) { rows.append(row(one)); remembered.places.push(one.place); }
      start += found.rows.length;
      count = found.count;
      const { done: read, size, damaged } = found.progress;
      done = start >= count || !found.rows.length;
      told.textContent = `${count} trajectories${read < size ? `, ${Math.floor((100 * read) / size)} % of the file read so far` : ""}${damaged ? `, ${damaged} lines cannot be read` : ""}`;
      if (read < size && fresh) setTimeout(() => mine === asked && more(true), 100);
    } catch (error) {
      if (mine === asked) told.textContent = error.message;
    } finally {
      if (mine === asked) busy = false;
    }
    if (!done && end.getBoundingClientRect().top < innerHeight + 400) more(false);
  }

  function row(one) {
    const box = h("input", { type: "checkbox", "aria-label": "mark for side by side" });
    box.addEventListener("change", () => mark(one, box.checked));
    return h("tr", {}, h("td", {}, box), h("td", { "data-name": "problem" }, h("a", { href: link("trajectory", name, one.place) }, one.problem), one.sample ? ` #${one.sample}` : ""),
      h("td", {}, badge(one.verdict)), h("td", { class: "answer", "data-name": "answer" }, one.answer ?? ""), h("td", { "data-name": "stop" }, one.stop),
      h("td", { class: "right", "data-name": "calls" }, one.calls), h("td", { class: one.failed ? "right bad" : "right", "data-name": "failed" }, one.failed || ""),
      h("td", { class: "right", "data-name": "tokens" }, one.tokens), h("td", { class: "right", "data-name": "seconds" }, number(one.seconds)), h("td", { "data-name": "strategy" }, one.strategy));
  }

  function mark(one, on) {
    if (on) marks.set(one.place, one); else marks.delete(one.place);
    if (marks.size === 2) location.hash = link("pair", ...[...marks.keys()].flatMap((place) => [name, place]));
  }

  function change(key, value) {
    if (value) state[key] = value; else delete state[key];
    const parameters = new URLSearchParams(state).toString();
    history.replaceState(null, "", link("run", name) + (parameters ? `?${parameters}` : ""));
    done = false;
    more(true);
  }

  function facets(found) {
    for (const kind of ["verdict", "strategy", "stop"]) {
      const options = Object.entries(found[kind]).map(([value, many]) => h("option", { value, selected: state[kind] === value }, `${value} (${many})`));
      fields[kind].replaceChildren(h("option", { value: "" }, `any ${kind}`), ...options);
    }
  }

  const select = (kind) => (fields[kind] = h("select", { "aria-label": kind, onchange: (event) => change(kind, event.target.value) }));
  const least = (kind) => h("label", {}, `${kind} ≥ `, h("input", { type: "number", min: 0, value: state[kind] || "", onchange: (event) => change(kind, event.target.value) }));
  let wait = 0;
  const search = h("input", { type: "search", placeholder: "search in all that was said  (/)", "aria-label": "search", value: state.text || "",
    oninput: (event) => { clearTimeout(wait); wait = setTimeout(() => change("text", event.target.value), 250); } });
  const order = h("select", { "aria-label": "order", onchange: (event) => change("sort", event.target.value) },
    Object.entries(SORTS).map(([value, text]) => h("option", { value, selected: (state.sort || "place") === value }, text)));
  const check = (kind, text) => h("label", {}, h("input", { type: "checkbox", checked: state[kind] === "true", onchange: (event) => change(kind, event.target.checked && "true") }), ` ${text}`);
  const filters = h("div", { class: "filters" }, search, select("verdict"), select("strategy"), select("stop"), least("calls"), least("tokens"),
    check("errors", "failed calls"), order, check("down", "descending"));

  function choose(step) {
    const all = rows.rows;
    if (!all.length) return;
    if (all[chosen]) all[chosen].classList.remove("chosen");
    chosen = Math.min(Math.max(chosen + step, 0), all.length - 1);
    all[chosen].classList.add("chosen");
    all[chosen].scrollIntoView({ block: "nearest" });
    if (chosen > all.length - 10) more(false);
  }

  const watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(false), { rootMargin: "400px" });
  const head = ["", "problem", "verdict", "answer", "stop", "calls", "failed", "tokens", "seconds", "strategy"];
  return {
    title: name, up: "#/", where: [h("span", {}, name)],
    content: [filters, told, h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, head.map((one) => h("th", {}, one)))), rows)), end],
    shown: () => { more(true).then(() => watcher.observe(end)); },
    leave: () => { left = true; watcher.disconnect(); },
    key: (key) => {
      const box = rows.rows[chosen] && rows.rows[chosen].querySelector("input");
      if (key === "j") choose(1);
      else if (key === "k") choose(-1);
      else if (key === "Enter" && chosen >= 0) rows.rows[chosen].querySelector("a").click();
      else if (key === "x" && box) box.click();
      else return false;
      return true;
    },
  };
}
