// A training's curves, drawn here.

import { h, svg, api } from "./dom.js";

const [WIDTH, HEIGHT, EDGE] = [360, 200, 34];

export async function training([name]) {
  const told = await api("training", { name });
  const report = told.report ? h("details", {}, h("summary", {}, "report"), h("pre", { class: "text" }, JSON.stringify(told.report, null, 1))) : null;
  const manifest = told.manifest ? h("details", {}, h("summary", {}, "settings"), h("pre", { class: "text" }, JSON.stringify(told.manifest, null, 1))) : null;
  const panels = told.panels.length ? h("div", { class: "panels" }, told.panels.map(panel)) : h("p", { class: "quiet" }, "Nothing was measured yet.");
  return { title: name, up: "#/", where: [name], content: [h("h1", {}, name), panels, manifest, report] };
}

function panel(one) {
  const points = one.curves.flatMap((curve) => curve.points);
  const values = one.curves.flatMap((curve) => [...curve.points.map((point) => point[1]), ...curve.band.flat()]).filter((value) => value !== null);
  const [left, right] = [Math.min(...points.map((point) => point[0])), Math.max(...points.map((point) => point[0]))];
  const [low, high] = one.share ? [0, 1] : [Math.min(0, ...values), Math.max(...values)];
  const x = (step) => EDGE + ((step - left) / (right - left || 1)) * (WIDTH - EDGE - 8);
  const y = (value) => HEIGHT - 22 - ((value - low) / (high - low || 1)) * (HEIGHT - 34);
  const path = (list) => list.filter((point) => point[1] !== null).map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const band = (curve) => (curve.band.length ? svg("path", { class: "band", d: path([...curve.points.map((point, at) => [point[0], curve.band[at][1]]), ...curve.points.map((point, at) => [point[0], curve.band[at][0]]).reverse()]) + "Z" }) : "");
  const label = (value, at) => svg("text", { x: EDGE - 4, y: y(value) + 4, "text-anchor": "end" }, at);
  const drawn = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": one.title },
    svg("path", { class: "axis", d: `M${EDGE} 8V${HEIGHT - 22}H${WIDTH - 8}` }), label(high, short(high)), label(low, short(low)),
    svg("text", { x: EDGE, y: HEIGHT - 6 }, short(left)), svg("text", { x: WIDTH - 8, y: HEIGHT - 6, "text-anchor": "end" }, `step ${short(right)}`),
    one.curves.map((curve, at) => svg("g", { class: `curve k${at % 6}` }, band(curve), svg("path", { class: "line", d: path(curve.points) }),
      curve.points.length < 30 ? curve.points.filter((point) => point[1] !== null).map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 2.5 })) : "")));
  const legend = one.curves.length > 1 ? h("p", { class: "legend" }, one.curves.map((curve, at) => h("span", { class: `k${at % 6}` }, curve.name))) : null;
  return h("figure", {}, h("figcaption", {}, one.title), drawn, legend);
}

const short = (value) => (Number.isInteger(value) ? String(value) : Number(value).toPrecision(3));
