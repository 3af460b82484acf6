import assert from "node:assert/strict";
import { test } from "node:test";
import { AHEAD_LIMIT, Timeline } from "../../chat/frontends/web/static/js/protocol/timeline.js";

const record = (seq) => ({ type: "message", conv: "#a", epoch: "e", seq, ts: seq, from: "ann", text: String(seq) });
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => record(from + n));
const page = (from, to, last, more = false, epoch = "e") => ({ epoch, messages: range(from, to), first_seq: 1, last_seq: last, more });
const seqs = (records) => records.map(({ seq }) => seq);

test("records in order appear, doubles do not", () => {
  const timeline = new Timeline("#a", "e", 4);
  assert.deepEqual(seqs(timeline.receive(record(5))), [5]);
  assert.deepEqual(timeline.receive(record(5)), []);
  assert.deepEqual(timeline.receive(record(3)), []);
  assert.equal(timeline.ahead.size, 0);
  assert.equal(timeline.wants(), null);
});

test("one that is ahead waits until the page between has come", () => {
  const timeline = new Timeline("#a", "e", 4);
  assert.deepEqual(timeline.receive(record(8)), []);
  const asked = timeline.wants();
  assert.equal(asked.after, 4);
  assert.equal(timeline.wants(), null, "asked once");
  assert.deepEqual(seqs(timeline.forward(page(5, 7, 8), asked)), [5, 6, 7, 8]);
  assert.equal(timeline.behind, false);
});

test("a page that overlaps with what came live", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.raise(3);
  const asked = timeline.wants();
  assert.deepEqual(seqs(timeline.receive(record(1))), [1]);
  assert.deepEqual(seqs(timeline.forward(page(1, 4, 4), asked)), [2, 3, 4]);
});

test("a page of another lineage begins anew", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.raise(3);
  assert.deepEqual(timeline.forward(page(1, 3, 9, false, "f"), timeline.wants()), []);
  assert.deepEqual([timeline.epoch, timeline.next, timeline.records.length], ["f", 10, 0]);
});

test("an answer about the lineage before is nothing", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.raise(3);
  const asked = timeline.wants();
  timeline.reset("f", 7);
  timeline.raise(9);
  assert.equal(timeline.wants().after, 7);
  assert.deepEqual(timeline.forward(page(1, 3, 3), asked), []);
  assert.deepEqual([timeline.epoch, timeline.next], ["f", 8]);
});

test("what is not there any more is told as missing, and nothing hangs", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.receive(record(5));
  const appeared = timeline.forward({ epoch: "e", messages: [record(3)], first_seq: 3, last_seq: 5, more: false }, timeline.wants());
  assert.deepEqual(appeared.map(({ type, from_seq, seq }) => [type, from_seq ?? seq, seq]), [["missing", 1, 2], ["message", 3, 3], ["missing", 4, 4], ["message", 5, 5]]);
  assert.equal(timeline.behind, false);
});

test("a hidden stretch takes all its places", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.raise(6);
  timeline.forward({ epoch: "e", messages: [{ type: "hidden", from_seq: 1, to_seq: 4 }, record(5), record(6)], first_seq: 1, last_seq: 6, more: false }, timeline.wants());
  assert.deepEqual(seqs(timeline.records), [4, 5, 6]);
  assert.equal(timeline.next, 7);
});

test("a page that is not the last is followed by the next", () => {
  const timeline = new Timeline("#a", "e", 0);
  timeline.raise(400);
  timeline.forward(page(1, 300, 400, true), timeline.wants());
  assert.equal(timeline.wants().after, 300);
});

test("too much missed: the stretch begins anew at the head, and older pages join without a hole", () => {
  const timeline = new Timeline("#a", "e", 10);
  timeline.receive(record(11));
  timeline.raise(5000);
  const before = timeline.generation;
  assert.equal(timeline.wants(), null);
  assert.ok(timeline.generation > before);
  assert.deepEqual(seqs(timeline.receive(record(5001))), [5001]);
  assert.equal(timeline.backward(page(4901, 5000, 5001, true), 5001), 100);
  assert.equal(timeline.backward(page(4901, 5000, 5001, true), 5001), 0, "an answer to an older question");
  assert.deepEqual([timeline.first, timeline.complete], [4901, false]);
  timeline.backward(page(1, 4900, 5001), 4901);
  assert.equal(timeline.complete, true);
  assert.deepEqual(seqs(timeline.records), seqs(range(1, 5001)));
});

test("what is let go can be asked for again", () => {
  const timeline = new Timeline("#a", "e", 0);
  for (const each of range(1, 100)) timeline.receive(each);
  timeline.trim(30);
  assert.deepEqual([timeline.first, timeline.records.length, timeline.complete], [71, 30, false]);
  assert.equal(timeline.find(71).seq, 71);
  assert.equal(timeline.find(70), null);
});

test("what waits ahead is bounded", () => {
  const timeline = new Timeline("#a", "e", 0);
  for (const each of range(2, 3 * AHEAD_LIMIT)) timeline.receive(each);
  assert.ok(timeline.ahead.size <= AHEAD_LIMIT);
});

test("any order of live records and pages gives each once", () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % n;
  for (let round = 0; round < 300; round++) {
    const timeline = new Timeline("#a", "e", 0);
    const seen = [];
    let asked = null;
    let head = 0;
    for (let step = 0; step < 60; step++) {
      if (random(3)) {
        head += 1;
        if (random(4)) seen.push(...timeline.receive(record(head)));
      } else if (random(2)) timeline.raise(head);
      else if (head) seen.push(...timeline.receive(record(1 + random(head))));
      if (asked && random(2)) {
        seen.push(...timeline.forward(page(asked.after + 1, Math.min(head, asked.after + 5), head, asked.after + 5 < head), asked));
        asked = null;
      }
      asked ??= timeline.wants();
    }
    timeline.raise(head);
    for (asked ??= timeline.wants(); asked; asked = timeline.wants()) seen.push(...timeline.forward(page(asked.after + 1, head, head), asked));
    assert.deepEqual(seqs(seen), seqs(range(1, head)), `round ${round}`);
  }
});

test("a message that was taken away keeps its place only", () => {
  const timeline = new Timeline("#a", "e", 0);
  for (const each of range(1, 3)) timeline.receive(each);
  timeline.erase(2);
  timeline.erase(7);
  assert.deepEqual(timeline.records.map(({ text, deleted }) => [text, deleted]), [["1", undefined], ["", true], ["3", undefined]]);
  assert.equal(timeline.find(2).from, "ann");
});
