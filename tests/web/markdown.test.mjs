import assert from "node:assert/strict";
import { test } from "node:test";
import { inline, parse, safe } from "../../chat/frontends/web/static/js/state/markdown.js";

const plain = (nodes) => nodes.map((node) => (typeof node === "string" ? node : (node.text ?? node.url ?? plain(node.children)))).join("");

test("bold, italic, code", () => {
  assert.deepEqual(inline("a **b** *c* _d_ `e*f*`"), [
    "a ", { type: "bold", children: ["b"] }, " ", { type: "italic", children: ["c"] }, " ", { type: "italic", children: ["d"] }, " ", { type: "code", text: "e*f*" },
  ]);
  assert.deepEqual(inline("**a *b* c**"), [{ type: "bold", children: ["a ", { type: "italic", children: ["b"] }, " c"] }]);
});

test("what is no emphasis stays as it was written", () => {
  for (const text of ["2 * 3 * 4", "snake_case_name", "**", "* a", "a*", "__init__x", "`", "``", "*a\\", "a ** b ** c", "*", "_a"]) assert.deepEqual(inline(text), [text], text);
});

test("a backslash takes the meaning away", () => {
  assert.deepEqual(inline("\\*a\\* \\`b\\`"), ["*a* `b`"]);
  assert.deepEqual(inline("C:\\dir"), ["C:\\dir"]);
});

test("links are http and https alone", () => {
  const urls = (text) => inline(text).filter((node) => node.type === "link").map(({ url }) => url);
  assert.deepEqual(urls("see https://a.example/x?y=1#z, and (http://b.example/c_(d))."), ["https://a.example/x?y=1#z", "http://b.example/c_(d)"]);
  assert.deepEqual(urls("HTTPS://A.example!"), ["HTTPS://A.example"]);
  for (const text of ["javascript:alert(1)", "data:text/html,x", "xhttps://a.example", "https://", "http://u:p@a.example/", "ftp://a.example", "//a.example", "https://a\u202eb"]) {
    for (const url of urls(text)) assert.ok(safe(url) && !url.includes("\u202e") && !text.startsWith("x") && !url.includes("@"), `${text} → ${url}`);
  }
  assert.deepEqual(urls("javascript:alert(1)//https"), []);
  for (const url of ["javascript:alert(1)", "javascript://a.example/%0aalert(1)", "ftp://a.example/", "https://u@a.example/"]) assert.equal(safe(url), false, url);
});

test("blocks: code, quotes, paragraphs", () => {
  assert.deepEqual(parse("a\n```js\n*x*\n\n<b>\n```\n> q1\n> q2\nz"), [
    { type: "paragraph", children: ["a"] },
    { type: "block", text: "*x*\n\n<b>" },
    { type: "quote", children: ["q1\nq2"] },
    { type: "paragraph", children: ["z"] },
  ]);
});

test("a block of code that is not closed is text, and the parser ends", () => {
  assert.equal(plain(parse("```\na\nb")), "```\na\nb");
  assert.equal(plain(parse("x\n```\ny")), "x```\ny");
});

test("markup of others is text", () => {
  assert.deepEqual(parse("<img src=x onerror=alert(1)> [a](javascript:b)"), [{ type: "paragraph", children: ["<img src=x onerror=alert(1)> [a](javascript:b)"] }]);
});

test("16 KiB of anything is parsed at once", () => {
  for (const unit of ["*", "_", "`", "**a", "*a ", "_a ", "> ", "```\n", "h", "https://", "https://a)", "\\", "*_`", "**_a_ "]) {
    const text = unit.repeat(16384 / unit.length);
    const before = process.cpuUsage();
    parse(text);
    const { user } = process.cpuUsage(before); // µs, on a machine that does other things too
    assert.ok(user < 1_000_000, `${unit}: ${user / 1000} ms`);
  }
});
