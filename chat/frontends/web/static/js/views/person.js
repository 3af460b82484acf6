// How a person is shown: the colour of the name, and a square with its first letter.

import { h } from "./dom.js";

const COLOR = /^#[0-9a-f]{6}$/i;

// The colour that somebody chose is readable on dark and on light: the server sees to it. Who chose none gets a hue of the name, and the
// style sheet the lightness that suits the theme.
export function paint(node, name, color) {
  if (COLOR.test(color ?? "")) {
    node.style.setProperty("--name", color);
  } else {
    node.style.setProperty("--hue", String(hue(name)));
    node.classList.add("hued");
  }
  node.classList.add("painted");
  return node;
}

export function hue(name) {
  let hash = 2166136261;
  for (const char of name.normalize("NFKC").toLowerCase()) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}

export function avatar(name, color, className = "avatar") {
  return paint(h("span", { class: className, "aria-hidden": "true" }, [...name][0]?.toUpperCase() ?? "?"), name, color);
}

export function presence(online) {
  return h("span", { class: online ? "dot on" : "dot" }, h("span.unseen", online ? "online" : "away"));
}
