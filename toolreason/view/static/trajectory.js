// One trajectory: what it is, its segments by source, its tokens.

import { h, api, link, badge, number } from "./dom.js";
import { remembered } from "./list.js";

const NAMES = { prompt: "prompt", model: "model", hint: "hint, inserted", tool: "tool, inserted" };

export async function trajectory([name, place]) {
  const one = await api("trajectory", { name, place });
  const strip = h("section", { class: "strip", hidden: true });
  const others = h("section");
  const go = (step) => {
    const at = remembered.name === name ? remembered.places.indexOf(Number(place)) : -1;
    const next = at < 0 ? undefined : remembered.places[at + step];
    if (next !== undefined) location.hash = link("trajectory", name, next);
  };
  const toggle = () => tokens(strip, name, place);
  const buttons = h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => go(-1) }, "previous (k)"), h("button", { type: "button", onclick: () => go(1) }, "next (j)"),
    h("button", { type: "button", id: "tokens", onclick: toggle }, "tokens (t)"));
  return {
    title: one.problem, up: link("run", name), where: [h("a", { href: link("run", name) }, name), " / ", h("span", {}, one.problem)],
    content: [head(one), buttons, strip, body(one), others],
    shown: () => same(others, one, name, place),
    key: (key) => ({ j: () => (go(1), true), k: () => (go(-1), true), t: () => (toggle(), true) })[key]?.() ?? false,
  };
}

export function head(one) {
  const rows = [
    ["verdict", [badge(one.verdict ? one.verdict.judgement : "none"), one.verdict && one.verdict.answer !== null ? ` answer ${one.verdict.answer}` : ""]],
    ["stop", one.stop], ["strategy", `${one.strategy} with ${one.policy}, temperature ${one.sampling.temperature}, seed ${one.sampling.seed}`],
    ["why", one.verdict && one.verdict.reason], ["error", one.error], ["format faults", one.faults.join(", ")], ["reads as", one.failures.join(", ")],
    ["rewards", parts(one.rewards)], ["verdict's parts", one.verdict && parts(one.verdict.parts)],
    ["seconds", parts(one.timings)], ["rounds", one.rounds.length ? one.rounds.map((verdict) => verdict.judgement).join(", ") : ""],
    ["trains", Object.entries(one.training).map(([purpose, why]) => `${purpose}: ${why ? `no (${why})` : "yes"}`).join(", ")],
    ...(one.tooling ? Object.entries(one.tooling).filter(([, names]) => names.length).map(([what, names]) => [`tools ${what}`, names.join(", ")]) : []),
  ].filter(([, value]) => value && value.length);
  return h("section", { class: "head" }, h("h1", {}, one.problem, one.sample ? ` #${one.sample}` : ""),
    h("dl", {}, rows.map(([title, value]) => [h("dt", {}, title), h("dd", {}, value)])),
    h("details", {}, h("summary", {}, "settings"), h("dl", {}, [["id", one.id], ...Object.entries(one.settings)].map(([title, value]) => [h("dt", {}, title), h("dd", {}, value)]))));
}

const parts = (values) => Object.entries(values || {}).map(([part, value]) => `${part} ${number(value, 3)}`).join(", ");

export function body(one) {
  const taken = (after) => one.taken_back.filter((part) => part.after === after).map((part) => h("details", { class: "taken" }, h("summary", {}, "taken back"), segment(part)));
  const segments = one.segments.map((part, at) => [segment(part), taken(at + 1)]);
  const aside = one.aside.map((part) => h("details", { class: "aside" }, h("summary", {}, `aside: ${part.strategy} by ${part.policy}`), part.segments.map(segment)));
  return h("section", { class: "segments" }, segments, aside);
}

function segment(one) {
  const sure = one.logprob === null ? "" : `, ${number(one.logprob, 2)} nats a token`;
  const failed = one.cell && !one.cell.ok ? " failed" : "";
  const label = h("div", { class: "label" }, NAMES[one.source] || one.source, h("span", { class: "quiet" }, ` ${one.tokens} tokens${sure}`));
  const text = h("pre", { class: "text" }, one.text, one.more ? h("em", {}, `\n[${one.more} characters more are not shown]`) : "");
  const content = one.source === "prompt" && one.text.length > 600 ? h("details", {}, h("summary", {}, "show the prompt"), text) : text;
  return h("article", { class: `segment ${one.source}${failed}` }, one.cell ? cell(one.cell) : null, label, content);
}

export const code = (pieces) => h("pre", { class: "code" }, pieces.map(([kind, text]) => (kind ? h("span", { class: `c-${kind.replace(/\W/g, "")}` }, text) : text)));

function cell(one) {
  const output = (title, key) => (one[key] ? [h("div", { class: "label" }, title), h("pre", { class: key }, one[key], one.cut[key] ? h("em", {}, `\n[${one.cut[key]} characters more]`) : "")] : null);
  return h("div", { class: one.ok ? "cell" : "cell failed" },
    h("div", { class: "label" }, "code ", h("span", { class: one.ok ? "good" : "bad" }, one.outcome), h("span", { class: "quiet" }, ` ${number(one.seconds, 3)} s`)),
    code(one.code), one.more ? h("em", {}, `[${one.more} characters more]`) : null,
    output("output", "stdout"), output("errors", "stderr"), output("value", "value"), one.traceback ? output("traceback", "traceback") : output("error", "error"),
    one.dropped ? h("p", { class: "quiet" }, `${one.dropped} characters were left out when it ran`) : null,
    one.figures.map((figure, at) => h("img", { src: `data:image/png;base64,${figure}`, alt: `figure ${at + 1}` })),
    one.not_shown ? h("p", { class: "quiet" }, `${one.not_shown} figures are not shown: no PNG, or too large`) : null);
}

// the strip

const MODES = { source: "by source", sft: "what sft trains", rl: "what rl trains", logprob: "log-probability" };

async function tokens(strip, name, place) {
  if (!strip.hidden) { strip.hidden = true; return; }
  strip.hidden = false;
  if (strip.childElementCount) return;
  const told = await api("tokens", { name, place }).catch((error) => ({ error: error.message }));
  if (told.error) { strip.append(h("p", { class: "problem" }, told.error)); return; }
  const row = h("div", { class: "tokens" });
  const mode = (value) => { row.dataset.mode = value; };
  for (const part of told.segments) {
    const kinds = ["token", part.source, part.trained.sft ? "sft" : "", part.trained.rl ? "rl" : ""].filter(Boolean).join(" ");
    for (const [id, text, logprob] of part.tokens) {
      const shown = text === null ? `⟨${id}⟩` : text.replace(/\n/g, "⏎") || "∅";
      row.append(h("span", { class: `${kinds} ${bucket(logprob)}`, title: `${id}, ${part.source}${logprob === null ? "" : `, ${logprob.toFixed(3)} nats`}` }, shown));
      if (text !== null && text.includes("\n")) row.append(h("br"));
    }
  }
  const chooser = h("fieldset", {}, h("legend", {}, "colour"), Object.entries(MODES).map(([value, text]) =>
    h("label", {}, h("input", { type: "radio", name: "mode", value, checked: value === "source", onchange: () => mode(value) }), ` ${text} `)));
  mode("source");
  strip.append(chooser, told.readable ? "" : h("p", { class: "quiet" }, "These are ids: the policy's tokenizer is not on this machine, or its name does not tell it. Name it with --tokenizer."), row);
  if (told.left_out) strip.append(h("p", { class: "quiet" }, `${told.left_out} tokens more are not shown`));
}

const bucket = (logprob) => (logprob === null ? "lp-none" : `lp-${Math.min(5, Math.floor(-logprob))}`);

async function same(others, one, name, place) {
  const found = await api("same", { problem: one.problem }).catch(() => ({ rows: [] }));
  const rest = found.rows.filter((row) => row.run !== name || row.place !== Number(place));
  if (!rest.length) return;
  others.append(h("h2", {}, "The same problem"), h("ul", {}, rest.map((row) => h("li", {}, badge(row.verdict), " ", h("a", { href: link("pair", name, place, row.run, row.place) }, "side by side"), " ",
    h("a", { href: link("trajectory", row.run, row.place) }, `${row.run} #${row.sample}`), h("span", { class: "quiet" }, ` ${row.strategy}, ${row.calls} calls, ${row.tokens} tokens`)))));
}
