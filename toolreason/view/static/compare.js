// Two collections compared over the rollouts that both have.

import { h, api, link, number, percent, rate, table, whole } from "./dom.js";

export async function compare([first, second]) {
  const [mine, theirs] = [await whole(first), await whole(second)];
  const found = await api("compare", { first, second });
  const line = (title, value) => [title, value(mine), value(theirs)];
  const rows = [
    line("strategy", (one) => one.strategy), line("policy", (one) => one.policy), line("rollouts", (one) => one.rollouts), line("right, of all", rate),
    ["right, of the shared", rate(found.first), rate(found.second)], line("calls", (one) => number(one.calls)), line("with a call", (one) => percent(one.with_calls)),
    line("failed calls", (one) => percent(one.failed)), line("tokens", (one) => number(one.tokens, 0)), line("seconds", (one) => number(one.seconds)), line("settings", (one) => one.settings),
  ];
  const pairs = table(["", `${second}: right`, `${second}: wrong`], [[`${first}: right`, found.both, found.only_first], [`${first}: wrong`, found.only_second, found.neither]]);
  return {
    title: "compared", up: "#/", where: ["compared"],
    content: [h("h1", {}, "Two collections"), table(["", h("a", { href: link("run", first) }, first), h("a", { href: link("run", second) }, second)], rows),
      h("h2", {}, `${found.shared} rollouts in both`), pairs, h("p", {}, found.p === null ? "nothing to compare" : `McNemar's exact p = ${found.p.toPrecision(3)}`)],
  };
}
