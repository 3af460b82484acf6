import assert from "node:assert/strict";
import { test } from "node:test";
import { suggest } from "../../chat/frontends/web/static/js/state/completion.js";
import { mentioned } from "../../chat/frontends/web/static/js/state/store.js";

const argument = (name, kind, more = {}) => ({ name, kind, required: true, ...more });
const commands = [
  { name: "create-channel", usage: "create-channel <name> (password)", description: "Make one.", arguments: [argument("name", "channel-name"), argument("password", "word", { secret: true, required: false })] },
  { name: "color", aliases: ["colour"], usage: "color <colour>", description: "Choose.", arguments: [argument("colour", "text")] },
  { name: "tell", usage: "tell <username> <message>", description: "Say.", arguments: [argument("username", "user"), argument("message", "text")] },
  { name: "users", usage: "users", description: "List.", arguments: [] },
  { name: "set", usage: "set <what>", description: "Set.", arguments: [argument("what", "choice", { choices: ["all", "some"] })] },
];
const world = { prefix: "//", commands, people: [{ name: "ann" }, { name: "Anton" }, { name: "bob" }], channels: [{ name: "lobby", detail: "hi" }] };
const at = (text) => suggest(text, text.length, world);
const labels = (found) => found?.candidates.map(({ label }) => label) ?? null;

test("the prefix alone shows all; letters choose, also those of a later part or an alias", () => {
  assert.equal(at("//").candidates.length, 5);
  assert.deepEqual(labels(at("//c")), ["color", "create-channel"]);
  assert.deepEqual(labels(at("//chan")), ["create-channel"]);
  assert.deepEqual(labels(at("//colo")), ["color"]);
  assert.equal(at("//zzz"), null);
  assert.equal(at("//users").candidates[0].insert, "//users");
  assert.equal(at("//tel").candidates[0].insert, "//tell ");
});

test("an argument is named while it is typed, and completed where that can be", () => {
  assert.deepEqual([at("//tell ").argument, labels(at("//tell "))], [0, ["ann", "Anton", "bob"]]);
  const found = at("//tell @an");
  assert.deepEqual(labels(found), ["ann", "Anton"]);
  assert.equal("//tell @an".slice(found.from, found.to), "@an");
  assert.equal(at("//tell ann hello there").argument, 1);
  assert.equal(at('//create-channel "a b" x').argument, 1);
  assert.deepEqual(labels(at("//set s")), ["some"]);
  assert.equal(at("//users "), null);
});

test("@ completes people inside a text, and not in an address", () => {
  const found = at("hello @an");
  assert.deepEqual(labels(found), ["@ann", "@Anton"]);
  assert.equal(`hello ${found.candidates[0].insert}`, "hello @ann ");
  assert.equal(at("me@an"), null);
  assert.equal(at("plain"), null);
});

test("a mention is the whole name", () => {
  for (const text of ["@ann hi", "hi @Ann!", "(@ann)", "@annie and @ann.", "@ann-"]) assert.ok(mentioned(text, "ann"), text);
  for (const text of ["@annie", "ann", "me@ann", "@ann.lee", "@ann-lee", "@ann_x"]) assert.ok(!mentioned(text, "ann"), text);
});
