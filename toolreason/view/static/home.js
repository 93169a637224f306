// What there is: runs, trainings, libraries.

import { h, api, link, percent, number, whole } from "./dom.js";

export async function home() {
  const places = await api("places");
  const body = h("tbody");
  const marked = new Set();
  const button = h("button", { type: "button", disabled: true, onclick: () => { location.hash = link("compare", ...marked); } }, "compare two");
  for (const name of places.runs) body.append(row(name, marked, button));
  const runs = places.runs.length
    ? h("section", {}, h("h2", {}, "Runs"), button, h("div", { class: "scroll" }, h("table", { class: "runs" },
        h("thead", {}, h("tr", {}, ["", "run", "strategy", "policy", "rollouts", "right (95 %)", "calls", "tokens", "failed calls", "started"].map((name) => h("th", {}, name)))), body)))
    : h("p", { class: "quiet" }, "There is no run below the directories that were named. A collection that begins there is shown as soon as this page is loaded again.");
  const others = [["trainings", "training", "Trainings"], ["libraries", "library", "Tool libraries"]].map(([kind, page, title]) =>
    places[kind].length ? h("section", {}, h("h2", {}, title), h("ul", {}, places[kind].map((name) => h("li", {}, h("a", { href: link(page, name) }, name))))) : null);
  return { content: [runs, ...others.filter(Boolean)], title: "", shown: () => fill(places.runs, body) };
}

function row(name, marked, button) {
  const box = h("input", { type: "checkbox", "aria-label": `mark ${name}` });
  box.addEventListener("change", () => {
    if (box.checked) marked.add(name); else marked.delete(name);
    button.disabled = marked.size !== 2;
  });
  return h("tr", {}, h("td", {}, box), h("td", {}, h("a", { href: link("run", name) }, name)), Array.from({ length: 8 }, () => h("td", { class: "quiet" }, "…")));
}

async function fill(names, body) {
  for (const [at, name] of names.entries()) {
    const cells = body.rows[at] && body.rows[at].cells;
    if (!cells || !body.isConnected) return;
    const one = await whole(name, () => body.isConnected).catch((error) => ({ error: error.message }));
    const texts = one.error ? [one.error] : [one.strategy, one.policy, `${one.rollouts}${one.aborted ? ` and ${one.aborted} aborted` : ""}`,
      one.scored ? `${percent(one.accuracy)} (${percent(one.low)} to ${percent(one.high)})` : "–", number(one.calls), number(one.tokens, 0), percent(one.failed), (one.started || "").replace("T", " ").slice(0, 16)];
    for (let column = 0; column < 8; column++) {
      cells[column + 2].textContent = texts[column] ?? "";
      cells[column + 2].className = one.error && column === 0 ? "problem" : "";
    }
  }
}
