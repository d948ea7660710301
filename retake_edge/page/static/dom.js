// Elements, made without a framework.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach((pair) => made.style.setProperty(...pair));
    else made.setAttribute(name, value === true ? "" : value);
  }
  const wanted = (child) => child !== null && child !== undefined && child !== false;
  made.append(...children.flat().filter(wanted));
  return made;
}

/** Return an element; properties that begin with "on" are handlers, false and null are left out. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Return an element of an SVG picture. */
export function shape(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

const PATHS = {
  add: "M12 5v14M5 12h14",
  ask: "M5 12h13M13 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  folder: "M3 6h6l2 2h10v11H3z",
  keys: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M8 14h8",
  menu: "M4 6h16M4 12h16M4 18h16",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  stop: "M7 7h10v10H7z",
  upload: "M12 16V4M7 9l5-5 5 5M4 20h16",
};

/** Return a small picture for a button; what it stands for is said beside it. */
export function icon(name) {
  return shape("svg", { class: `icon icon-${name}`, viewBox: "0 0 24 24", "aria-hidden": "true" },
    shape("path", { d: PATHS[name] }));
}

/** Put children in place of those that are there. */
export function show(parent, ...children) {
  parent.replaceChildren(...children.flat().filter(Boolean));
}
