import assert from "node:assert/strict";
import { test } from "node:test";
import "./setup.mjs";
import { delay } from "../../chat/frontends/web/static/js/protocol/backoff.js";
import { Keeper, Memory } from "../../chat/frontends/web/static/js/protocol/keeper.js";
import { Outbox, newCid } from "../../chat/frontends/web/static/js/protocol/outbox.js";

test("it survives a reload, in order, until the ack", () => {
  const storage = new Memory();
  const before = new Outbox(storage, "k");
  const [one, two] = [before.add("#a", "one"), before.add("@b", "two", 7)];
  const after = new Outbox(storage, "k");
  assert.deepEqual(after.entries, [one, two]);
  assert.equal(after.head.cid, one.cid);
  after.settle(one.cid);
  assert.deepEqual(new Outbox(storage, "k").entries, [two]);
  assert.equal(two.reply_to, 7);
  after.settle(two.cid);
  assert.equal(storage.length, 0, "nothing stays behind");
});

test("a refused text lets the next one pass, and is another attempt when it is tried again", () => {
  const outbox = new Outbox(new Memory(), "k");
  const [one, two] = [outbox.add("#a", "one"), outbox.add("#a", "two")];
  outbox.fail(one.cid, "you are muted");
  assert.equal(outbox.head.cid, two.cid);
  const again = outbox.retry(one.cid);
  assert.notEqual(again.cid, one.cid);
  assert.deepEqual(outbox.entries.map(({ text, failed }) => [text, failed]), [["two", undefined], ["one", undefined]]);
});

test("what an ended session left is taken along once", () => {
  const storage = new Memory();
  const keeper = new Keeper(new Memory(), storage);
  new Outbox(storage, keeper.outboxKey("ann", "s1")).add("#a", "left");
  new Outbox(storage, keeper.outboxKey("ann", "s2")).add("#a", "of a living tab");
  new Outbox(storage, keeper.outboxKey("anna", "s3")).add("#a", "of another person");
  const outbox = new Outbox(storage, keeper.outboxKey("ann", "s4"));
  outbox.add("#a", "new");
  for (const key of keeper.leftOutboxes("ann", new Set(["s2", "s4"]))) outbox.adopt(key);
  assert.deepEqual(outbox.entries.map(({ text }) => text), ["left", "new"]);
  assert.deepEqual(keeper.leftOutboxes("ann", new Set(["s2", "s4"])), []);
});

test("a full storage is told, and damaged contents are none", () => {
  const storage = new Memory();
  storage.setItem("k", "{not json");
  const outbox = new Outbox(storage, "k");
  assert.deepEqual(outbox.entries, []);
  storage.setItem = () => {
    throw new Error("full");
  };
  outbox.add("#a", "x");
  assert.equal(outbox.kept, false);
  assert.equal(outbox.head.text, "x");
});

test("cids are what the protocol wants, and all different", () => {
  const cids = new Set(Array.from({ length: 1000 }, newCid));
  assert.equal(cids.size, 1000);
  for (const cid of cids) assert.match(cid, /^[A-Za-z0-9_-]{1,64}$/);
});

test("a token is kept in one place: the tab, or the device when asked", () => {
  const [tab, device] = [new Memory(), new Memory()];
  const keeper = new Keeper(tab, device);
  keeper.save({ user: "ann", session: "s", token: "1", device: false });
  assert.deepEqual([tab.length, device.length], [1, 0]);
  keeper.save({ user: "ann", session: "s", token: "2", device: true });
  assert.deepEqual([tab.length, device.length, keeper.session.token], [0, 1, "2"]);
  keeper.forget("another");
  assert.equal(keeper.session.token, "2");
  keeper.forget("s");
  assert.equal(keeper.session, null);
});

test("the wait doubles, is spread, has an end, and is never shorter than the server asked for", () => {
  assert.ok(delay(0, null, () => 0) >= 0.25 && delay(0, null, () => 1) <= 0.5);
  assert.ok(delay(3, null, () => 1) > 2 * delay(1, null, () => 1) - 1e-9);
  assert.ok(delay(99, null, () => 1) <= 30);
  assert.ok(delay(0, 7, () => 0) >= 7);
});
