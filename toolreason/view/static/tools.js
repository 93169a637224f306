// A library of tools: what is in it, and one tool with its versions, tests and lineage.

import { h, api, link, table } from "./dom.js";
import { code } from "./trajectory.js";

export async function library([name]) {
  const { tools } = await api("library", { name });
  const body = h("tbody");
  const fill = (text) => body.replaceChildren(...tools.filter((one) => `${one.name} ${one.description} ${one.category}`.toLowerCase().includes(text.toLowerCase())).map((one) => h("tr", {},
    h("td", {}, h("a", { href: link("tool", name, one.name) }, one.name)), h("td", {}, `@${one.version}`), h("td", { class: `status ${one.status}` }, one.status), h("td", {}, one.category),
    h("td", {}, one.description), h("td", { class: "right" }, one.calls ? `${one.successes}/${one.calls}` : ""), h("td", { class: "right" }, one.reuse || ""), h("td", {}, one.author))));
  fill("");
  const head = ["tool", "version", "status", "category", "what it does", "calls that ran well", "reused by", "author"];
  return {
    title: name, up: "#/", where: [name],
    content: [h("h1", {}, `${tools.length} tools`), h("div", { class: "filters" }, h("input", { type: "search", placeholder: "find a tool  (/)", "aria-label": "find a tool", oninput: (event) => fill(event.target.value) })),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((one) => h("th", {}, one)))), body))],
  };
}

export async function tool([name, chosen]) {
  const one = await api("tool", { name, tool: chosen });
  const other = (identity) => h("a", { href: link("tool", name, identity.split("@")[0]) }, identity);
  const list = (title, names) => (names.length ? h("p", {}, `${title} `, names.map((identity, at) => [at ? ", " : "", other(identity)])) : null);
  const versions = one.versions.map((version, at) => h("details", { open: at === 0, class: "version" },
    h("summary", {}, `@${version.version} `, h("span", { class: `status ${version.status}` }, version.status), ` by ${version.author}, ${version.created}`),
    h("p", {}, version.description), version.reason ? h("p", { class: "quiet" }, version.reason) : null, version.need ? h("p", {}, `made for: ${version.need}`) : null,
    list("made from", version.parents), version.requirements.length ? h("p", {}, `needs ${version.requirements.join(", ")}`) : null,
    h("h3", {}, "code"), code(version.code), h("h3", {}, "tests"), code(version.tests), h("details", {}, h("summary", {}, "parameters"), h("pre", { class: "text" }, version.parameters))));
  const events = table(["when", "version", "what", "status", "by", "why"], one.events.map((event) => [event.at, `@${event.version}`, event.kind, event.status, event.by, event.reason]));
  return {
    title: one.name, up: link("library", name), where: [h("a", { href: link("library", name) }, name), " / ", one.name],
    content: [h("h1", {}, one.name), h("p", {}, `${one.calls} calls, ${one.successes} ran well, on ${one.problems} problems; reused by ${one.reuse}`), list("others were made from it:", one.made_from), versions, h("h2", {}, "what happened"), events],
  };
}
