// Two trajectories side by side: plain against hinted, one sample against another.

import { h, api, link } from "./dom.js";
import { head, body } from "./trajectory.js";

export async function pair([first, at, second, there]) {
  const both = await Promise.all([[first, at], [second, there]].map(([name, place]) => api("trajectory", { name, place })));
  const column = (one, name, place) => h("div", { class: "column" }, h("p", {}, h("a", { href: link("trajectory", name, place) }, name)), head(one), body(one));
  return {
    title: both[0].problem, up: link("run", first), where: [h("a", { href: link("run", first) }, first), " / side by side"],
    content: [h("div", { class: "pair" }, column(both[0], first, at), column(both[1], second, there))],
  };
}
