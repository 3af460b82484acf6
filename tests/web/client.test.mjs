import assert from "node:assert/strict";
import { test } from "node:test";
import "./setup.mjs";
import { Client } from "../../chat/frontends/web/static/js/protocol/client.js";
import { Keeper, Memory } from "../../chat/frontends/web/static/js/protocol/keeper.js";
import { Store } from "../../chat/frontends/web/static/js/state/store.js";

const WELCOME = { type: "welcome", protocol: 1, server: "t", name: "home", limits: {}, prefix: "//", registration: "open" };

// The server's end of a socket, for a test to write the other half of the conversation.
function world() {
  const sockets = [];
  class Socket {
    constructor(url, protocol) {
      Object.assign(this, { url, protocol, readyState: 0, sent: [] });
      sockets.push(this);
      queueMicrotask(() => {
        this.readyState = 1;
        this.onopen();
      });
    }
    send(text) {
      const frame = JSON.parse(text);
      this.sent.push(frame);
      if (frame.type === "hello") queueMicrotask(() => this.say(WELCOME));
    }
    say(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
    close() {
      if (this.readyState === 3) return;
      this.readyState = 3;
      queueMicrotask(() => this.onclose());
    }
    of(type) {
      return this.sent.filter((frame) => frame.type === type);
    }
    answer(type, frame) {
      const asked = this.sent.findLast((each) => each.type === type);
      this.say({ ...frame, id: asked.id });
      return asked;
    }
  }
  const [tab, device] = [new Memory(), new Memory()];
  const make = () => new Client({ url: "ws://x/ws", keeper: new Keeper(tab, device), WebSocket: Socket, locks: null });
  return { sockets, tab, device, make, get socket() { return sockets.at(-1); } };
}

const settled = async () => {
  for (let n = 0; n < 20; n++) await null;
};
const session = (more = {}) => ({ type: "session", user: "ann", session: "s1", resume_token: "t1", heads: { "#a": ["epoch", 5] }, channels: [{ channel: "a", topic: "", role: "member" }], ...more });
const message = (seq, more = {}) => ({ type: "message", conv: "#a", epoch: "epoch", seq, ts: seq, from: "bob", text: `m${seq}`, ...more });

async function loggedIn(here = world(), answer = session()) {
  const client = here.make();
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  here.socket.answer("login", answer);
  await opening;
  await settled();
  return { here, client };
}

async function lost(here) {
  here.socket.close();
  await settled();
}

async function resumed(here, client, more = {}) {
  client.nudge();
  await settled();
  here.socket.answer("resume", session({ type: "resumed", resume_token: "t2", ...more }));
  await settled();
}

test("hello is first, with the subprotocol", async () => {
  const { here } = await loggedIn();
  assert.equal(here.socket.protocol, "chat.v1");
  assert.deepEqual(here.socket.sent.map(({ type }) => type).slice(0, 2), ["hello", "login"]);
});

test("a login while the page is still introducing itself waits for it", async () => {
  const here = world();
  const client = here.make();
  client.introduce();
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  assert.equal(here.sockets.length, 1);
  assert.deepEqual(here.socket.sent.map(({ type }) => type), ["hello", "login"]);
  here.socket.answer("login", session());
  await opening;
  assert.equal(client.state, "online");
});

test("a new token is kept before anything is sent after `resumed`", async () => {
  const { here, client } = await loggedIn();
  client.say("#a", "waits");
  await lost(here);
  client.nudge();
  await settled();
  const kept = [];
  const send = here.socket.send;
  here.socket.send = function (text) {
    kept.push(JSON.parse(here.tab.getItem("chat.session")).token);
    send.call(this, text);
  };
  here.socket.answer("resume", session({ type: "resumed", resume_token: "t2" }));
  await settled();
  assert.ok(kept.length > 0);
  assert.deepEqual([...new Set(kept)], ["t2"]);
});

test("a resume names the token and what is lacking", async () => {
  const { here, client } = await loggedIn();
  here.socket.say(message(6));
  await lost(here);
  client.nudge();
  await settled();
  const [frame] = here.socket.of("resume");
  assert.equal(frame.token, "t1");
  assert.deepEqual(frame.cursors, { "#a": ["epoch", 7] });
});

test("texts go one at a time, in order; what has no ack goes again with its cid", async () => {
  const { here, client } = await loggedIn();
  for (const text of ["one", "two"]) client.say("#a", text);
  await settled();
  assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["one"]);
  const { cid } = here.socket.of("send")[0];
  await lost(here);
  await resumed(here, client);
  const again = here.socket.of("send")[0];
  assert.deepEqual([again.text, again.cid], ["one", cid]);
  here.socket.answer("send", { type: "ack", cid, conv: "#a", epoch: "epoch", seq: 6, ts: 6, dup: true });
  await settled();
  assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["one", "two"]);
  assert.deepEqual(client.timelines.get("#a").records.map(({ text, seq }) => [text, seq]), [["one", 6]]);
});

test("a text whose ack was lost and that is replayed is not sent again", async () => {
  const { here, client } = await loggedIn();
  client.say("#a", "one");
  await settled();
  const { cid } = here.socket.of("send")[0];
  await lost(here);
  client.nudge();
  await settled();
  here.socket.say(message(6, { from: "ann", text: "one", cid }));
  here.socket.answer("resume", session({ type: "resumed", resume_token: "t2" }));
  await settled();
  assert.deepEqual(here.socket.of("send"), []);
  assert.equal(client.outbox.entries.length, 0);
});

test("a refusal for now holds the order; one for good lets the next pass", async (t) => {
  const waits = [];
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms) => waits.push([work, ms]);
  t.after(() => (globalThis.setTimeout = real));
  const { here, client } = await loggedIn();
  for (const text of ["one", "two"]) client.say("#a", text);
  await settled();
  here.socket.answer("send", { type: "error", code: "rate_limited", message: "slowly", retry_after: 3 });
  await settled();
  assert.equal(here.socket.of("send").length, 1);
  const [work] = waits.find(([, ms]) => ms === 3000);
  work();
  await settled();
  assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["one", "one"]);
  here.socket.answer("send", { type: "error", code: "forbidden", message: "you are muted" });
  await settled();
  assert.equal(here.socket.of("send").at(-1).text, "two");
  assert.equal(client.outbox.entries[0].failed, "you are muted");
});

test("a command that was too fast is asked again when its time has come", async (t) => {
  const waits = [];
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms) => waits.push([work, ms]);
  t.after(() => (globalThis.setTimeout = real));
  const { here, client } = await loggedIn();
  const coming = client.command("report bob", "#a");
  await settled();
  const { cid } = here.socket.of("command")[0];
  here.socket.answer("command", { type: "error", code: "rate_limited", message: "too many commands; wait 0.4 s", retry_after: 0.4 });
  await settled();
  assert.equal(client.held.name, "report");
  assert.equal(here.socket.of("command").length, 1);
  waits.find(([, ms]) => ms === 400)[0]();
  await settled();
  assert.equal(client.held, null);
  assert.deepEqual(here.socket.of("command").map((each) => each.cid), [cid, cid]);
  here.socket.answer("command", { type: "result", text: "reported" });
  assert.equal((await coming).text, "reported");
  const refused = client.command("report bob", "#a");
  await settled();
  here.socket.answer("command", { type: "error", code: "rate_limited", message: "too many reports; wait 600 s", retry_after: 600 });
  await assert.rejects(refused, /too many reports/); // nobody waits that long
});

test("what waits in one conversation holds up no other, and says for how long", async (t) => {
  const waits = [];
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms) => waits.push([work, ms]);
  t.after(() => (globalThis.setTimeout = real));
  const { here, client } = await loggedIn();
  client.say("#a", "slow");
  await settled();
  here.socket.answer("send", { type: "error", code: "rate_limited", message: "#a is in slow mode; wait 30.0 s", retry_after: 30 });
  await settled();
  const hold = client.outbox.held("#a");
  assert.ok(hold.until - Date.now() > 29_000 && hold.until - Date.now() <= 30_000);
  assert.match(hold.why, /slow mode/);
  client.say("@bob", "meanwhile");
  await settled();
  assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["slow", "meanwhile"]);
  here.socket.answer("send", { type: "ack", cid: here.socket.of("send").at(-1).cid, conv: "@bob", epoch: "abcdefgh", seq: 1, ts: 1 });
  await settled();
  waits.find(([, ms]) => ms === 30_000)[0]();
  await settled();
  assert.equal(client.outbox.held("#a"), null);
  assert.equal(here.socket.of("send").at(-1).text, "slow");
});

test("whose address is banned is told why; the session stays, for another address or another day", async () => {
  const { here, client } = await loggedIn();
  here.socket.say({ type: "closing", code: "forbidden" });
  await lost(here);
  client.nudge();
  await settled();
  const message = "203.0.113.0/24, where you come from, is banned by root for 2 h more; ask root";
  here.socket.answer("resume", { type: "error", code: "forbidden", message });
  await settled();
  assert.equal(client.trouble, message);
  await resumed(here, client);
  assert.equal(client.state, "online");
});

test("a session that has ended asks for the password, and keeps what was not sent for the next", async () => {
  const here = world();
  const { client } = await loggedIn(here);
  let why = null;
  client.on("ended", (text) => (why = text));
  await lost(here);
  client.say("#a", "left over");
  client.nudge();
  await settled();
  here.socket.answer("resume", { type: "error", code: "unauthorized", message: "no" });
  await settled();
  assert.match(why, /log in/);
  assert.equal(here.tab.getItem("chat.session"), null);
  assert.equal(client.state, "out");
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  here.socket.answer("login", session({ session: "s2", resume_token: "t9" }));
  await opening;
  await settled();
  assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["left over"]);
});

test("replaced: it does not come back by itself, and does when it is asked to", async () => {
  const { here, client } = await loggedIn();
  here.socket.say({ type: "replaced" });
  await settled();
  assert.equal(client.state, "replaced");
  assert.equal(here.sockets.length, 1);
  client.resume();
  await settled();
  assert.equal(here.sockets.length, 2);
});

test("a hole is filled by the history", async () => {
  const { here, client } = await loggedIn();
  const appeared = [];
  client.on("records", (conv, records) => appeared.push(...records.map(({ seq }) => seq)));
  here.socket.say(message(8));
  await settled();
  assert.deepEqual(here.socket.of("history").map(({ after }) => after), [5]);
  here.socket.answer("history", { type: "history", conv: "#a", epoch: "epoch", messages: [message(6), message(7)], first_seq: 1, last_seq: 8, more: false });
  await settled();
  assert.deepEqual(appeared, [6, 7, 8]);
});

test("a command whose connection is lost is asked again with its cid", async () => {
  const { here, client } = await loggedIn();
  const result = client.command("topic x", "#a");
  await settled();
  const [asked] = here.socket.of("command");
  await lost(here);
  await resumed(here, client);
  assert.equal(here.socket.of("command")[0].cid, asked.cid);
  here.socket.answer("command", { type: "result", text: "done", dup: true });
  assert.equal((await result).text, "done");
});

test("unread, mentions and the line of new messages", async () => {
  const here = world();
  const client = here.make();
  let looking = false;
  const store = new Store(client, { looking: () => looking });
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  here.socket.answer("login", session({ heads: { "#a": ["epoch", 5], "#b": ["epoch", 0] }, channels: [{ channel: "a", topic: "", role: "member" }, { channel: "b", topic: "", role: "member" }] }));
  await opening;
  store.show("#b");
  for (const more of [{}, { text: "hi @Ann" }, { from: "ann" }]) here.socket.say(message(client.timelines.get("#a").next, more));
  here.socket.say({ ...message(1), conv: "@bob", epoch: "other" });
  const a = store.conversations.get("#a");
  assert.deepEqual([a.unread, a.mentions, store.unread], [2, 1, 2]);
  store.show("#a");
  assert.equal(a.line, 5);
  assert.equal(a.unread, 2, "nobody looks at the page");
  looking = true;
  store.read();
  assert.deepEqual([a.unread, a.mentions, store.unread], [0, 0, 1]);
  assert.deepEqual(client.keeper.readMarks("ann")["#a"], ["epoch", 8]);
});

const person = (user, more = {}) => ({ user, role: "member", color: null, online: false, ...more });

test("of a large channel a part is listed, and nobody asks again for who speaks there", async (t) => {
  const waits = [];
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms) => waits.push([work, ms]);
  t.after(() => (globalThis.setTimeout = real));
  const { client, here } = await loggedIn();
  const store = new Store(client);
  store.show("#a");
  await settled();
  here.socket.answer("members", { type: "ok", data: [person("ann"), person("bob")], total: 1000, more: true });
  await settled();
  const a = store.here;
  assert.equal(a.unlisted, 998);
  for (const [seq, from] of [[6, "bob"], [7, "cid"], [8, "server"], [9, "cid"]]) here.socket.say(message(seq, { from }));
  here.socket.say({ type: "presence", users: { dan: true } });
  here.socket.say({ ...message(10), type: "joined", user: "eve" });
  here.socket.say({ ...message(11), type: "left", user: "bob" });
  assert.deepEqual(a.members.map(({ user }) => user), ["ann", "eve"]);
  assert.equal(here.socket.of("members").length, 1);
  assert.ok(!waits.some(([, ms]) => ms === 1000));
});

test("a secret argument is not shown", async () => {
  const { client, here } = await loggedIn();
  const store = new Store(client);
  here.socket.say(message(6));
  store.current = "#a";
  store.here.commands = [{ name: "create-channel", arguments: [{ name: "name" }, { name: "password", secret: true }] }];
  assert.equal(store.shownCommand("create-channel cabin open sesame"), "create-channel cabin •••••• ••••••");
  assert.equal(store.shownCommand("topic all hands"), "topic all hands");
});

test("what another session has read is not unread here", async () => {
  const here = world();
  const client = here.make();
  const store = new Store(client, { looking: () => false });
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  here.socket.answer("login", session({ read: { "#a": 4 } }));
  await opening;
  await settled();
  here.socket.answer("history", { type: "history", conv: "#a", epoch: "epoch", messages: [message(5)], first_seq: 1, last_seq: 5, more: false });
  await settled();
  assert.equal(store.conversations.get("#a").unread, 1, "the marker that the session began with");
  for (const seq of [6, 7, 8]) here.socket.say(message(seq));
  assert.equal(store.conversations.get("#a").unread, 4);
  here.socket.say({ type: "read", conv: "#a", seq: 7 });
  assert.equal(store.conversations.get("#a").unread, 1);
  assert.equal(client.timelines.get("#a").next, 9, "it is no record");
  here.socket.say({ type: "read", conv: "#a", seq: 2 });
  assert.equal(store.conversations.get("#a").unread, 1, "it never moves back");
  here.socket.say({ type: "read", conv: "#a", seq: 8 });
  assert.equal(store.conversations.get("#a").unread, 0);
});

test("one ends another session", async () => {
  const { here, client } = await loggedIn();
  const ended = client.endSession("s2");
  await settled();
  assert.deepEqual(here.socket.of("logout").map(({ session }) => session), ["s2"]);
  here.socket.answer("logout", { type: "ok" });
  await ended;
  assert.equal(client.state, "online");
});

// What a resume may be refused for: only `unauthorized` ends the session.
for (const code of ["storage_full", "storage_unavailable", "busy", "shutting_down", "internal_error"]) {
  test(`a resume that is refused with ${code} keeps token and texts, says why and is tried again`, async () => {
    const { here, client } = await loggedIn();
    client.say("#a", "waits");
    await lost(here);
    let ended = null;
    client.on("ended", (why) => (ended = why));
    client.nudge();
    await settled();
    here.socket.answer("resume", { type: "error", code, message: "the server's disk is full" });
    await settled();
    assert.equal(ended, null);
    assert.equal(client.state, "waiting");
    assert.equal(client.trouble, "the server's disk is full");
    assert.equal(JSON.parse(here.tab.getItem("chat.session")).token, "t1");
    assert.deepEqual(client.outbox.entries.map(({ text }) => text), ["waits"]);
    await resumed(here, client);
    assert.equal(client.state, "online");
    assert.equal(client.trouble, null);
    assert.deepEqual(here.socket.of("send").map(({ text }) => text), ["waits"]);
    await lost(here);
    assert.equal(client.trouble, null, "it is another trouble by then");
  });
}

test("who is online is not known until it is told, and no longer after a lost connection; who writes privately is", async () => {
  const here = world();
  const client = here.make();
  const store = new Store(client);
  const opening = client.open({ type: "login", username: "ann", password: "p" }, false);
  await settled();
  here.socket.answer("login", session({ heads: { "@eve": ["e", 1], "@tom": ["t", 0] } }));
  await opening;
  assert.equal(store.person("eve").online, undefined);
  here.socket.say({ type: "presence", users: { eve: false } });
  assert.equal(store.person("eve").online, false);
  here.socket.say(message(2, { conv: "@eve", epoch: "e", from: "eve", ts: Date.now() - 300_000 }));
  assert.equal(store.person("eve").online, false, "it was some time ago");
  here.socket.say(message(1, { conv: "@tom", epoch: "t", from: "tom", ts: Date.now() }));
  assert.equal(store.person("tom").online, true);
  here.socket.say(message(6, { from: "far", ts: Date.now() }));
  assert.equal(store.person("far").online, undefined, "in a large channel nobody tells when he goes");
  await lost(here);
  await resumed(here, client);
  assert.equal(store.person("tom").online, undefined, "he may have gone meanwhile");
  assert.equal(store.person("ann").online, true);
});
