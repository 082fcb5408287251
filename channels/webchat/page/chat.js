// The page: opens a conversation, shows what the gateway says in it and says what the person does.

import * as composer from "./composer.js";
import { connect, recallCourier, sendCourier } from "./connection.js";
import * as kept from "./conversations.js";
import * as log from "./log.js";

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 52rem)");
const WORDS = {
	lost: "Reconnecting…",
	damaged: "This browser's key to the conversation is damaged. Please start a new one.",
	unsupported_protocol: "This page is not of its gateway's version. Please reload it.",
	not_allowed: "The gateway does not allow this connection. Reload the page, or ask whoever runs it.",
};

// The one store. `state`: the connection's, "open" or a key of WORDS, and `why`; `running`: the turn, if one runs, and
// `stopped`: the id of the last one that is to stop; `resumed`: the connection continues what is shown; `asking`: for
// earlier events; `unread`: a reply came unseen.
const chat = {
	conversation: null, connection: null, state: "", why: "", running: null, stopped: "", resumed: false, asking: false, unread: false,
};

const key = () => chat.conversation.key;

// ---- conversations

function open(conversation = kept.create()) {
	if (chat.conversation?.key !== conversation.key) show(conversation);
	setDrawer(false);
	composer.focus();
}

function show(conversation) {
	composer.save();
	chat.conversation = conversation;
	kept.keepOpened(key());
	clear();
	setRunning(null);
	composer.setText(kept.draft(key()));
	start();
}

function clear() {
	log.clear();
	kept.outbox(key()).forEach(log.addPending);
}

function start() {
	chat.connection?.close();
	chat.connection = null;
	recallCourier(key());
	$("signin").hidden = true;
	setState(kept.isWhole(chat.conversation) ? "" : "damaged");
	if (chat.state) return;
	chat.connection = connect(key(), {
		hello: () => hello(chat.conversation, log.last()),
		probe: () => log.first() && { type: "history", before: log.first(), limit: 1 },
		onFrame: (frame) => on[frame.type]?.(frame),
		onState: setState,
		onMark: log.markFailed,
	});
}

const hello = ({ secret }, after) => (
	{ type: "hello", protocol: 1, session: secret, token: kept.token() || undefined, after, render: "html", client: "page" }
);

/** Sends what waits in conversations that are not open. */
function sendOthers() {
	if (chat.state !== "open") return; // it is done at the next welcome
	const waiting = kept.waiting(), isUp = () => chat.state === "open";
	for (const other of kept.all()) {
		if (other.key === key() || !waiting.has(other.key)) continue;
		sendCourier(other.key, { hello: () => hello(other), isUp, onEnd: drawAround });
	}
}

function leave(conversation) {
	kept.forget(conversation.key);
	recallCourier(conversation.key);
	if (conversation.key !== key()) return drawAround();
	chat.conversation = null;
	open(kept.all()[0]);
}

// ---- what the person does

const isCommand = ({ text }) => text?.startsWith("/");

function say(text) {
	if (text.trim() === "/stop" && chat.running) return stop(); // control never waits behind messages
	const word = /^\/(yes|no)(?:\s+(\d+))?$/.exec(text.trim());
	if (word) return decide(text, word[1] === "yes", word[2]);
	const item = { id: kept.messageId(), text, at: Date.now() };
	chat.conversation = kept.touch(chat.conversation, isCommand(item) ? "" : text);
	kept.keepWaiting(key(), item);
	log.addPending(item);
	log.toLatest();
	chat.connection?.flush();
	drawAround();
}

/** By the card that is shown, not by the word: what the gateway asks meanwhile is not meant. */
function decide(text, allow, number) {
	const why = log.decide(allow, number);
	if (why) log.addNotice({ text: why }, text.trim());
}

function stop() {
	if (!chat.running) return;
	chat.stopped = chat.running.turn;
	chat.connection.send({ type: "stop" });
}

function retry(id) {
	const item = kept.outbox(key()).find((waiting) => waiting.id === id);
	log.dropPending(id);
	if (item) log.addPending(chat.connection.retry(item));
}

function askAgain(of) {
	kept.keepWaiting(key(), { id: kept.messageId(), of, at: Date.now() });
	chat.connection.flush();
	drawStatus();
}

function askEarlier() {
	if (chat.state === "open" && !chat.asking) chat.asking = chat.connection.send({ type: "history", before: log.first(), limit: 50 });
}

// ---- what the gateway says

const on = {
	welcome({ session, model, running, reset }) {
		if (reset) clear();
		chat.resumed = Boolean(log.last());
		chat.asking = false;
		if (session && session !== chat.conversation.secret) kept.save(Object.assign(chat.conversation, { secret: session }));
		$("model").textContent = model;
		$("demo").hidden = model !== "demo";
		setRunning(running);
		if (running?.turn === chat.stopped) stop(); // the word for it was lost with the connection
		sendOthers();
	},

	event(frame) {
		const { event } = frame, mine = chat.running?.turn === (event.turn ?? "");
		const closes = event.name === "turn_failed" || (event.role === "assistant" && event.finish !== "tool_calls");
		log.addEvent(frame);
		if (event.role === "user" && !chat.conversation.title) chat.conversation = kept.touch(chat.conversation, event.content);
		if (closes && (mine || chat.resumed)) tellReply(event.content);
		if (closes && mine) setRunning(null);
		drawAround();
	},

	ack({ id, queued }) {
		log.confirm(id, queued > 0);
		drawAround();
	},

	started(frame) {
		log.place(frame.answers);
		setRunning(frame);
	},

	block(frame) {
		if (frame.turn === chat.running?.turn) log.block(frame);
	},

	approval: log.addApproval,

	history({ events, more }) {
		if (!chat.asking) return; // a sign of life was asked for
		chat.asking = false;
		log.setEarlier(more);
		log.addOlder(events);
	},

	notice(frame) {
		log.addNotice(frame, log.dropPending(frame.id));
		drawAround();
	},

	error({ code, message, id }) {
		chat.asking = false;
		log.askAnew();
		if (!id && code !== "shutting_down") log.addNotice({ text: message });
	},
};

function setRunning(running) {
	chat.running = running;
	if (running) log.startTurn(running);
	else log.endTurn();
	composer.setRunning(Boolean(running));
}

function tellReply(text) {
	log.announce(text ? `Lunar: ${text}` : "The reply was stopped.");
	chat.unread = document.hidden;
}

// ---- the connection's state, in words

function setState(state, error) {
	chat.why = error?.message ?? "";
	if (state === "refused" && error.code === "unauthorized") askToken(chat.why);
	else if (state === "refused") state = error.code in WORDS ? error.code : "not_allowed";
	chat.state = state;
	drawAround();
}

function askToken(why) {
	$("signin").hidden = false;
	$("signin-text").textContent = kept.token()
		? why : "Open the sign-in link that the gateway printed, or enter the token here. Only this browser keeps it.";
	$("token").value = "";
	$("token").focus();
}

function drawStatus() {
	const line = $("status"), { state, why } = chat;
	let text = WORDS[state] ?? "";
	if (state === "lost") {
		text = navigator.onLine ? `${why} ${text}` : "You are offline.";
		if (kept.next(key())) text += " Your message is kept and will be sent.";
	}
	line.dataset.connection = state;
	if (line.textContent !== text) line.textContent = text;
}

// ---- what surrounds the transcript

function drawAround() {
	const title = kept.nameOf(chat.conversation);
	$("title").textContent = title;
	document.title = `${chat.unread ? "● " : ""}${title} · Lunar`;
	$("welcome").hidden = Boolean(chat.conversation.title) || !log.isEmpty();
	kept.drawList(chat.conversation);
	drawStatus();
}

function setDrawer(shown) {
	const before = document.body.classList.contains("drawer");
	document.body.classList.toggle("drawer", shown);
	$("side").inert = narrow.matches && !shown;
	$("drawer").ariaExpanded = shown;
	if (shown !== before) $(shown ? "new" : "drawer").focus();
}

function lookAgain() {
	if (document.hidden) return;
	chat.unread = false;
	drawAround();
	chat.connection?.wake();
}

function escape(event) {
	if (event.key !== "Escape" || composer.isComposing(event) || document.querySelector("dialog[open], :popover-open")) return;
	if (document.body.classList.contains("drawer")) setDrawer(false);
	else stop();
}

function followList() {
	const now = kept.find(key());
	if (!now) return leave(chat.conversation);
	chat.conversation = now;
	drawAround();
}

function followOutbox(where, id, item, before) {
	const mine = where === key(), command = isCommand(item ?? before); // whose answer comes to its own tab only
	if (mine && !item) log.dropPending(id, command ? undefined : "failed"); // what else was accepted comes as an event
	if (mine && item && !command) log.addPending(item);
	if (item) setTimeout(() => (where === key() ? chat.connection?.flush() : sendOthers()), 3_000); // unless its own tab did
	else if (!kept.next(where)) recallCourier(where);
	drawAround();
}

function listen() {
	$("new").onclick = () => open(kept.all().find(kept.isBlank));
	$("drawer").onclick = () => setDrawer(true);
	$("shade").onclick = () => setDrawer(false);
	narrow.onchange = () => setDrawer(false);
	$("starters").onclick = ({ target }) => {
		if (target.localName === "button") composer.setText(target.textContent);
		composer.focus();
	};
	$("signin").onsubmit = (event) => {
		event.preventDefault();
		kept.keepToken($("token").value.trim());
		start();
		composer.focus();
	};
	document.addEventListener("keydown", escape);
	document.addEventListener("visibilitychange", lookAgain);
	for (const name of ["online", "pageshow"]) addEventListener(name, lookAgain);
	addEventListener("offline", drawStatus);
	addEventListener("lunar-token", start);
	kept.follow({ list: followList, outbox: followOutbox, token: start });
}

log.setUp({
	onRetry: retry,
	onAgain: askAgain,
	onEarlier: askEarlier,
	onApprove: (callId, allow) => chat.connection.send({ type: "approve", call_id: callId, allow }),
});
kept.setUp({
	onOpen: open,
	onLeave: leave,
	onRename: followList,
	onTrouble: (text) => log.addNotice({ text }),
});
composer.setUp({
	onSend: say,
	onStop: stop,
	onDraft: (text) => chat.conversation && kept.keepDraft(key(), text),
});
open(kept.find(kept.opened()) ?? kept.all()[0]);
listen();
