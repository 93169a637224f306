// Elements without markup: every text becomes a text node, so nothing that a model wrote can act.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

export function add(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return add(element, children);
}

// The API, below wherever this page is mounted. Keys are kept for this tab only.
export async function api(path, parameters = {}) {
  const url = new URL(`api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined && value !== false) url.searchParams.set(name, value);
  }
  const key = sessionStorage.getItem("key");
  const answer = await fetch(url, key ? { headers: { Authorization: `Bearer ${key}` } } : {});
  if (answer.status === 401) throw new NeedsKey();
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const why = told.error && told.error.message ? told.error.message : told.error;
    throw new Error(why || `the server says ${answer.status}`);
  }
  return told;
}

// A run in numbers, once all of its file is in the list.
export async function whole(name, wanted = () => true) {
  let one;
  do one = await api("run", { name }); while (one.indexed < 1 && wanted());
  return one;
}

export class NeedsKey extends Error {}

export const link = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
export const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`);
export const number = (value, digits = 1) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits).replace(/\.0+$/, ""));
export const rate = (one) => (one.scored ? `${one.correct}/${one.scored} = ${percent(one.accuracy)} (${percent(one.low)} to ${percent(one.high)})` : "nothing scored");
export const SIGNS = { correct: "✓ correct", wrong: "✗ wrong", unscored: "? unscored", none: "· no verdict" };
export const badge = (verdict) => h("span", { class: `verdict ${verdict in SIGNS ? verdict : "none"}` }, SIGNS[verdict] || verdict);

export function table(head, rows, attributes = {}) {
  return h("div", { class: "scroll" }, h("table", attributes,
    h("thead", {}, h("tr", {}, head.map((name) => h("th", {}, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}
