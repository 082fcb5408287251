// The transcript as a person sees it: events in order, the reply that is being written, what waits to be sent.
// A user's message stands directly before the turn that answers it; until that turn starts it waits in #queue.

const $ = (id) => document.getElementById(id);
const scroller = $("scroller"), events = $("events"), live = $("live"), queue = $("queue"), thinking = $("thinking");
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const MARKS = {
	stopped: "Stopped",
	cut: "The reply broke off here",
	length: "Cut at the model's length limit",
	filtered: "Withheld by the model's filter",
};

const sources = new WeakMap(); // a message's element -> its text, to copy
let seen, told, marked, main, oldest, newest, since = 0, pinned = true, scrolled = 0, on;

/** @param {object} handlers `onRetry(id)`, `onAgain(of)`, `onApprove(callId, allow)`, `onEarlier()` */
export function setUp(handlers) {
	on = handlers;
	scroller.onscroll = () => {
		const { scrollTop, scrollHeight, clientHeight } = scroller;
		// Growth moves the end away too, but only a person scrolls up.
		pinned = scrollHeight - scrollTop - clientHeight < 60 || (pinned && scrollTop >= scrolled);
		scrolled = scrollTop;
		$("latest").hidden = pinned;
		if (scrollTop < 400 && !$("earlier").hidden) on.onEarlier();
	};
	const resized = new ResizeObserver(follow);
	resized.observe($("log"));
	resized.observe(scroller);
	$("earlier").onclick = on.onEarlier;
	$("latest").onclick = toLatest;
	$("log").onclick = copyClicked;
	setInterval(drawThinking, 1000);
}

export function clear() {
	seen = new Set(); // cursors
	told = new Set(); // ids of what is not a message and was not taken
	main = { into: events, held: new Map() }; // held: the messages in #queue, by id
	marked = {}; // `upTo`: the last event with the marks of time before it, `before`: the last message's time, `today`
	oldest = newest = undefined;
	for (const part of [events, live, queue]) part.replaceChildren();
	setEarlier(false);
	toLatest();
}

/** Cursors of the first and the last event held. */
export const first = () => oldest;
export const last = () => newest;
export const isEmpty = () => !$("log").querySelector("article, .notice");

/** @param {boolean} more there are earlier messages to ask for */
export function setEarlier(more) {
	$("earlier").hidden = !more;
}

function follow() {
	if (pinned && $("welcome").hidden) scroller.scrollTop = scroller.scrollHeight;
}

export function toLatest() {
	pinned = true;
	follow();
}

/** Tells a screen reader something, once: the log itself is silent, or streaming would shout. */
export function announce(text) {
	$("announce").textContent = text.slice(0, 1000);
}

// ---- parts

function make(tag, className = "", text = "") {
	const element = document.createElement(tag);
	element.className = className;
	element.textContent = text;
	return element;
}

const button = (label, act, className = "text") => Object.assign(make("button", className, label), { onclick: act });

function card(role, ...parts) {
	const made = make("div", `notice ${role}`);
	made.dataset.role = role;
	made.append(...parts);
	return made;
}

const clone = (id) => $(id).content.firstElementChild.cloneNode(true);

function copyButton(label) {
	const made = clone("copy");
	made.ariaLabel = made.title = label;
	made.hidden = !navigator.clipboard; // browsers have none without https, except on this machine
	return made;
}

const policy = globalThis.trustedTypes?.createPolicy("lunar", { createHTML: (html) => html });

/** THE ONE PLACE where text becomes markup: the gateway's own sanitised rendering (`html` of an event, a block, a
 *  notice) and nothing else; all the rest is textContent. What a template holds neither runs nor loads. */
function rendered(html) {
	const template = document.createElement("template");
	template.innerHTML = policy ? policy.createHTML(html) : html;
	template.content.querySelectorAll("pre").forEach(frameCode);
	return [...template.content.childNodes].filter((node) => node.nodeType !== Node.TEXT_NODE || node.data.trim());
}

function frameCode(pre) {
	const figure = make("figure", "code"), caption = make("figcaption", "", pre.dataset.language ?? "text");
	caption.append(copyButton("Copy code"));
	pre.replaceWith(figure);
	pre.tabIndex = 0; // it scrolls inside itself: the keyboard must reach it
	figure.append(caption, pre);
}

/** Makes `parent` hold `nodes`, touching only what differs: no flicker, and a selection survives. */
function settle(parent, nodes) {
	nodes.forEach((node, index) => {
		const now = parent.childNodes[index];
		if (!now) parent.append(node);
		else if (!now.isEqualNode(node)) now.replaceWith(node);
	});
	while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

async function copyClicked({ target }) {
	const pressed = target.closest(".copy");
	if (!pressed) return;
	const code = pressed.closest("figure")?.lastElementChild;
	await navigator.clipboard.writeText(code ? code.textContent : sources.get(pressed.closest("article")));
	announce("Copied");
	pressed.classList.add("done");
	setTimeout(() => pressed.classList.remove("done"), 1500);
}

// ---- messages

function message(role) {
	const article = clone("message");
	article.classList.add(article.dataset.role = role);
	article.ariaLabel = role === "user" ? "You" : "Lunar";
	article.lastElementChild.append(copyButton("Copy message"));
	return article;
}

function fill(article, { content = "", ts }, html) {
	const body = article.firstElementChild, time = article.querySelector("time"), at = new Date(ts);
	sources.set(article, content);
	body.classList.toggle("plain", html === undefined);
	settle(body, html === undefined ? [new Text(content)] : rendered(html));
	if (isNaN(at)) return; // another program's file may have no times
	time.dateTime = article.dataset.ts = at.toISOString();
	time.textContent = clock.format(at);
	time.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "medium" });
}

function setState(article, state, mark = "") {
	article.dataset.state = state;
	article.querySelector(".mark").textContent = mark;
	article.querySelector(".why")?.remove();
}

/** Shows a message of one's own that the gateway has not confirmed yet. */
export function addPending({ id, text, at, failed }) {
	if (!text || isStored(id)) return; // another tab's word of it may come after the event
	const article = main.held.get(id) ?? message("user");
	article.dataset.id = id;
	setState(article, "pending");
	fill(article, { content: text, ts: at });
	main.held.set(id, article);
	queue.append(article);
	if (failed) markFailed(id, failed);
}

function isStored(id) {
	return !main.held.has(id) && events.querySelector(`[data-role=user][data-id="${CSS.escape(id)}"]`) !== null;
}

/** @param {boolean} [passing] it is sent again by itself */
export function markFailed(id, why, passing) {
	const article = main.held.get(id), text = passing ? `${why} It is sent again by itself.` : why;
	if (!article) {
		if (!passing || !told.has(id)) addNotice({ text });
		return told.add(id);
	}
	const row = make("div", "why", text);
	setState(article, "failed");
	row.append(button("Retry", () => on.onRetry(id)));
	article.append(row);
}

/** The gateway has it on disk. @param {boolean} queued other turns come first */
export function confirm(id, queued) {
	const article = main.held.get(id), state = queued ? "queued" : "sent";
	if (article) setState(article, state, queued ? state : "");
}

/** Takes away a message that waits here no longer. @returns {string | undefined} its text */
export function dropPending(id, onlyState) {
	const article = main.held.get(id);
	if (onlyState && article?.dataset.state !== onlyState) return;
	main.held.delete(id);
	article?.remove();
	return sources.get(article);
}

/** These messages (all, by default) are being answered: they take their place before what comes next. */
export function place(ids, { into, held } = main) {
	for (const id of ids ?? [...held.keys()]) {
		const article = held.get(id);
		if (!article?.dataset.cursor) continue;
		setState(article, "sent");
		held.delete(id);
		into.append(article);
	}
}

// ---- events

const DRAW = {
	user({ event, html, cursor }, page) {
		const { id } = event, article = page.held.get(id) ?? message("user");
		fill(article, event, html);
		article.dataset.cursor = cursor;
		if (!id) return page.into.append(article);
		article.dataset.id = id;
		page.held.set(id, article);
		if (page !== main) return;
		if (!article.isConnected) queue.append(article);
		confirm(id, "turn" in live.dataset);
	},

	assistant({ event, html, cursor, truncated }, page) {
		const { turn, answers = [], finish = "stop", content } = event, onTheWay = finish === "tool_calls";
		place(turn && answers, page);
		const article = (page === main && takeLive(event, html)) || message("assistant");
		fill(article, event, html);
		article.dataset.cursor = cursor;
		setState(article, finish, MARKS[finish] ?? (truncated ? "Shortened here" : ""));
		article.lastElementChild.hidden = onTheWay;
		if (content || !onTheWay) page.into.append(article);
	},

	tool_call({ event }, page) {
		drawCall(event, page).querySelector("pre").textContent = pretty(event.args);
	},

	tool_result({ event }, page) {
		const call = drawCall(event, page);
		call.lastElementChild.textContent = pretty(event.result);
		setCall(call, event.ok === false ? "failed" : "finished");
		dropApproval(event.call_id);
	},

	system: ({ event }, page) => DRAW_SYSTEM[event.name]?.(event, page),
};

const DRAW_SYSTEM = {
	approval: ({ call_id: id }) => dropApproval(id),

	started: ({ messages }, page) => place(messages, page),

	steered: ({ messages }, page) => place(messages, page),

	reset(event, page) {
		place(undefined, page);
		page.into.append(make("div", "divider reset", "New conversation from here"));
	},

	turn_failed(event, page) {
		place(event.answers, page);
		page.into.append(failure(event));
	},
};

function failure({ content, answers }) {
	const of = answers?.at(-1);
	const again = button("Ask again", () => {
		again.disabled = true;
		on.onAgain(of);
	});
	again.dataset.again = of;
	return card("failure", make("p", "", content || "The turn failed."), of ? again : "");
}

function draw(items, page) {
	for (const item of items) {
		if (seen.has(item.cursor)) continue;
		seen.add(item.cursor);
		DRAW[item.event.role]?.(item, page);
	}
}

/** Shows the next event; one that is held already changes nothing. */
export function addEvent(frame) {
	const { name, id } = frame.event;
	if (!oldest) setEarlier(name !== "session" && !main.held.has(id)); // a file's first event, or our own
	oldest ??= frame.cursor;
	if (!seen.has(frame.cursor)) newest = frame.cursor;
	draw([frame], main);
	separate();
	drawThinking();
}

/** Puts older events before the others; what is in sight stays there. */
export function addOlder(items) {
	const page = { into: document.createDocumentFragment(), held: new Map() };
	draw(items, page);
	place(undefined, page);
	oldest = items[0]?.cursor ?? oldest;
	const below = scroller.scrollHeight - scroller.scrollTop;
	events.prepend(page.into);
	marked = {};
	separate();
	scroller.scrollTop = scroller.scrollHeight - below;
}

/** Marks where another day begins and where there was silence for an hour, in what has come since the last time. */
function separate() {
	const today = new Date().toDateString();
	if (marked.today !== today) { // they say "today" and "yesterday"
		events.querySelectorAll(":scope > .time").forEach((old) => old.remove());
		marked = { today };
	}
	let next = marked.upTo ? marked.upTo.nextElementSibling : events.firstElementChild;
	for (; next; next = next.nextElementSibling) {
		marked.upTo = next;
		if (!next.dataset.ts) continue;
		const at = new Date(next.dataset.ts), { before } = marked, sameDay = before?.toDateString() === at.toDateString();
		if (!sameDay || at - before > 3_600_000) next.before(make("div", "divider time", sameDay ? clock.format(at) : dayName(at)));
		marked.before = at;
	}
}

function dayName(at) {
	const days = Math.round((new Date(at).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
	return days < -1 ? at.toLocaleDateString(undefined, { dateStyle: "full" }) : relative.format(days, "day");
}

// ---- tools and cards

const pretty = (value = "") => (typeof value === "string" ? value : JSON.stringify(value));

/** Finds or makes a call's place; its result comes first when the call is in an older part. */
function drawCall({ call_id: id, name, turn }, page) {
	const here = `[data-call="${CSS.escape(id)}"]`, call = make("section");
	const held = page.into.querySelector(here) ?? events.querySelector(here);
	if (held) return held;
	let group = page.into.lastElementChild;
	if (!group?.matches(".tools") || group.dataset.turn !== turn) {
		group = make("details", "tools");
		group.dataset.turn = turn;
		group.append(make("summary"));
		page.into.append(group);
	}
	Object.assign(call.dataset, { call: id, name });
	call.append(make("strong", "", name), make("pre"), make("pre"));
	group.append(call);
	setCall(call, "started");
	return call;
}

function setCall(call, state) {
	call.dataset.state = state;
	const [summary, ...calls] = call.parentElement.children, which = (wanted) => calls.filter((one) => one.dataset.state === wanted);
	const running = which("started")[0], failed = which("failed").length;
	const names = [...new Set(calls.map((one) => one.dataset.name))].join(", ");
	call.parentElement.dataset.state = running ? "started" : "finished";
	summary.textContent = running ? `Using ${running.dataset.name}…` : `Used ${names}${failed ? ` · ${failed} failed` : ""}`;
}

/** What cannot be seen, or turns the direction of writing round, as its number. */
const visible = (text) => text.replace(/[^\P{C}\n\t]/gu, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

export function addApproval({ call_id: id, name, args, number = 1, truncated }) {
	dropApproval(id);
	const row = make("div", "choices");
	const decide = (allow, { detail }) => {
		row.inert = true;
		if (!detail) $("composer").focus(); // by the keyboard: it goes on there
		on.onApprove(id, allow);
	};
	row.append(button("Allow", (event) => decide(true, event), "primary"), button("Don't allow", (event) => decide(false, event)));
	Object.assign(row.dataset, { approval: id, number });
	const shown = make("pre", "", visible(pretty(args)));
	shown.tabIndex = 0; // it scrolls inside itself: the keyboard must reach it
	const asked = make("p"), more = truncated ? make("p", "why", "Only the beginning is shown: it is too long.") : "";
	asked.append("May ", make("strong", "", visible(name)), " run with this?");
	const made = card("approval", asked, shown, more, row);
	made.setAttribute("role", "group");
	made.ariaLabel = `Approve ${name}`;
	live.append(made);
	drawThinking();
	announce(`Lunar asks whether ${name} may run.`);
}

/** The person answers in words. @param {string} [number] which one @returns {string | undefined} why not */
export function decide(allow, number) {
	const rows = [...live.querySelectorAll("[data-approval]")].filter((row) => !row.inert);
	const meant = rows.filter((row) => !number || row.dataset.number === number);
	if (meant.length > 1) return `Which one? ${meant.map((row) => `/${allow ? "yes" : "no"} ${row.dataset.number}`).join(" or ")}`;
	if (!meant.length) return "Nothing is being asked.";
	meant[0].children[allow ? 0 : 1].click();
}

/** An answer was not taken: it can be given again. */
export function askAnew() {
	live.querySelectorAll("[data-approval]").forEach((row) => (row.inert = false));
}

function dropApproval(id) {
	live.querySelector(`[data-approval="${CSS.escape(id)}"]`)?.parentElement.remove();
}

/** Something outside the transcript. @param {string} [asked] the command it answers */
export function addNotice({ text, html }, asked) {
	const body = make("div", html ? "body" : "body plain");
	body.append(...(html ? rendered(html) : [text]));
	events.append(card("notice", asked ? make("code", "", asked) : "", body));
	announce(text);
}

// ---- the running turn

const liveReply = () => live.querySelector("article");

/** A turn runs. @param {string[]} blocks what it has said since its last stored event */
export function startTurn({ turn, blocks = [] }) {
	if (liveReply()?.dataset.turn !== turn) live.replaceChildren();
	else if (!blocks.length) liveReply().remove();
	live.querySelectorAll(".approval").forEach((old) => old.remove()); // what is still asked comes again
	live.dataset.turn = turn;
	since = Date.now();
	blocks.forEach((html, index) => block({ html, index }));
	live.dataset.snapshot = blocks.length > 0;
	drawThinking();
}

export function block({ index, html }) {
	let article = liveReply();
	if (!article) {
		article = message("assistant");
		article.dataset.turn = live.dataset.turn;
		article.lastElementChild.hidden = true;
		setState(article, "streaming");
		live.prepend(article);
	}
	const body = article.firstElementChild;
	while (body.children.length <= index) body.append(make("div", "block"));
	settle(body.children[index], rendered(html));
	live.dataset.snapshot = false;
	drawThinking();
}

/** The streamed reply, to become the stored one; null if this event is not it: after a reconnection a running
 *  turn's earlier events are replayed when the snapshot of what follows them is shown already. */
function takeLive({ turn }, html = "") {
	const article = liveReply(), text = (nodes) => nodes.map((node) => node.textContent).join("").replace(/\s+/g, "");
	if (!turn || article?.dataset.turn !== turn) return null;
	const body = article.firstElementChild;
	if (live.dataset.snapshot === "true" && !text(rendered(html)).startsWith(text([body]))) return null;
	body.replaceChildren(...[...body.children].flatMap((part) => [...part.childNodes]));
	since = Date.now();
	return article;
}

/** The turn ended. What is shown of it waits for its closing event, which may come only now. */
export function endTurn() {
	const left = [...live.children];
	delete live.dataset.turn;
	setTimeout(() => left.forEach((part) => part.parentElement === live && part.remove()), 500);
	drawThinking();
}

/** The quiet line while nothing is being said. */
function drawThinking() {
	const seconds = Math.round((Date.now() - since) / 1000);
	thinking.hidden = !live.dataset.turn || Boolean(live.firstElementChild ?? events.lastElementChild?.matches(".tools[data-state=started]"));
	thinking.lastElementChild.textContent = seconds < 2 ? "Thinking…" : `Thinking… ${seconds} s`;
}
