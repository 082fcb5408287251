// Conversations: what this browser keeps of them (secrets, drafts, outboxes), and the side list that shows them.
// Each thing has its own key in local storage, so that tabs never overwrite each other.

/** @typedef {{key: string, secret: string, title: string, at: number}} Conversation */
/** @typedef {{id: string, text?: string, of?: string, at: number, failed?: string}} Waiting a message, or a request
 *  to answer `of` again; `failed`: why it is not sent by itself */

const DELETION_TIMEOUT = 15_000;
const CHAT = "lunar.chat.", DRAFT = "lunar.draft.", OUT = "lunar.out.";
const memory = new Map(); // what local storage refuses (no room, no permission) lives as long as the tab

function attempt(act, otherwise) {
	try { return act(); } catch { return otherwise?.(); }
}

const get = (name) => memory.get(name) ?? attempt(() => localStorage.getItem(name));
const put = (name, value) => attempt(() => {
	localStorage.setItem(name, value);
	memory.delete(name);
}, () => memory.set(name, value));
const read = (name) => attempt(() => JSON.parse(get(name)));

function drop(name) {
	memory.delete(name);
	attempt(() => localStorage.removeItem(name));
}

function names(prefix) {
	const kept = attempt(() => Object.keys(localStorage), () => []);
	const both = new Set([...kept, ...memory.keys()]); // of one there may be an older value in storage
	return [...both].filter((name) => name.startsWith(prefix));
}

const readAll = (prefix) => names(prefix).map(read).filter(Boolean);

function random(bytes) {
	const raw = String.fromCharCode(...crypto.getRandomValues(new Uint8Array(bytes)));
	return btoa(raw).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export const messageId = () => "m" + random(12);
export const token = () => get("lunar.token") ?? "";
export const keepToken = (value) => put("lunar.token", value);

/** @returns {Conversation[]} latest first */
export const all = () => readAll(CHAT).sort((a, b) => b.at - a.at);
/** @returns {Conversation | undefined} */
export const find = (key) => read(CHAT + key) ?? undefined;
export const save = (conversation) => put(CHAT + conversation.key, JSON.stringify(conversation));

/** The secret is made here, not by the gateway: two tabs that first connect at once (after typing offline, say)
 *  still open one session. @returns {Conversation} */
export function create() {
	const made = { key: random(6), secret: random(32), title: "", at: Date.now() };
	save(made);
	return made;
}

export const nameOf = ({ title }) => title || "New conversation";

/** A secret that was damaged here could only be refused. */
export const isWhole = ({ secret }) => /^[\w-]{43}$/.test(secret);

/** Nothing was said or typed in it. */
export const isBlank = ({ key, title }) => !title && !draft(key) && !outbox(key).length;

export function forget(key) {
	outbox(key).forEach(({ id }) => dropWaiting(key, id));
	keepDraft(key, "");
	drop(CHAT + key);
}

/** At most 60 letters, none of them (a flag, a family) cut in two. */
function beginning(text) {
	const letters = [...new Intl.Segmenter().segment(text.slice(0, 1_000))];
	return letters.slice(0, 60).map(({ segment }) => segment).join("");
}

/** Something was said; the first message becomes the title. @returns {Conversation} as it is now */
export function touch(conversation, text) {
	const now = { ...(find(conversation.key) ?? conversation), at: Date.now() };
	now.title ||= beginning(text.replace(/[#*`>\s]+/g, " ").trim()) || text.trim();
	save(now);
	return now;
}

export const draft = (key) => get(DRAFT + key) ?? "";
export const keepDraft = (key, text) => (text ? put(DRAFT + key, text) : drop(DRAFT + key));

/** @returns {Waiting[]} oldest first */
export const outbox = (key) => readAll(`${OUT}${key}.`).sort((a, b) => a.at - b.at);
/** @returns {Set<string>} keys of the conversations whose outbox is not empty */
export const waiting = () => new Set(names(OUT).map((name) => name.slice(OUT.length).split(".")[0]));
/** @returns {Waiting | undefined} what is to be sent next */
export const next = (key) => outbox(key).find((item) => !item.failed);
export const keepWaiting = (key, item) => put(`${OUT}${key}.${item.id}`, JSON.stringify(item));
export const dropWaiting = (key, id) => drop(`${OUT}${key}.${id}`);

/** @returns {string} the key of what this tab shows, or any tab showed last */
export const opened = () => attempt(() => sessionStorage.getItem("lunar.open")) ?? get("lunar.last");

export function keepOpened(key) {
	put("lunar.last", key);
	attempt(() => sessionStorage.setItem("lunar.open", key));
}

/** Follows what other tabs change.
 *  @param {{list, token, outbox: (key, id, item: Waiting | null, before: Waiting | null) => void}} on */
export function follow(on) {
	addEventListener("storage", ({ key, newValue, oldValue }) => {
		if (!key || key.startsWith(CHAT)) on.list();
		else if (key === "lunar.token") on.token();
		else if (key.startsWith(OUT)) on.outbox(...key.slice(OUT.length).split("."), JSON.parse(newValue), JSON.parse(oldValue));
	});
}

// ---- the side list

const $ = (id) => document.getElementById(id);

let on, drawn = "";

/** @param {object} handlers `onOpen(conversation)`, `onLeave(conversation)`: it is to go from here, `onRename()`,
 *    `onTrouble(text)` */
export function setUp(handlers) {
	on = handlers;
}

/** Touches only what differs: a press or a focus in the list, and an open menu, outlive what happens meanwhile.
 *  @param {Conversation} current */
export function drawList(current) {
	const list = $("list"), unsent = waiting(), focused = document.activeElement;
	const wanted = new Map(all().map(({ key, title }) => (
		[key, { title: nameOf({ title }), note: unsent.has(key) ? "not sent yet" : "", current: key === current.key }]
	)));
	const now = JSON.stringify([...wanted]);
	if (now === drawn) return;
	drawn = now;
	const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
	rows.forEach((row, key) => wanted.has(key) || row.remove());
	[...wanted].forEach(([key, what], index) => {
		const row = rows.get(key) ?? makeRow(key), there = list.children[index] ?? null;
		fillRow(row, what);
		if (row !== there) list.insertBefore(row, there);
	});
	if (focused !== document.activeElement) (focused.isConnected ? focused : $("new")).focus(); // its row moved or went
}

function makeRow(key) {
	const row = $("row").content.firstElementChild.cloneNode(true), [open, more] = row.children;
	const act = (deed) => find(key) && deed(find(key)); // as it is then
	row.dataset.key = key;
	open.onclick = () => act(on.onOpen);
	more.onclick = () => showMenu(more, (name) => act(MENU[name]));
	return row;
}

function fillRow({ children: [open, more] }, { title, note, current }) {
	set(open.firstElementChild, "textContent", title);
	set(open.lastElementChild, "textContent", note);
	set(open, "title", title);
	set(open, "ariaCurrent", String(current));
	set(more, "ariaLabel", `More about “${title}”`);
}

function set(element, property, value) {
	if (element[property] !== value) element[property] = value;
}

function showMenu(button, act) {
	const menu = $("menu"), box = button.getBoundingClientRect();
	menu.onclick = ({ target }) => {
		menu.hidePopover();
		if (target.dataset.act) act(target.dataset.act);
	};
	menu.showPopover();
	menu.style.top = `${Math.min(box.bottom, innerHeight - menu.offsetHeight - 8)}px`;
	menu.style.left = `${Math.max(8, box.right - menu.offsetWidth)}px`;
	menu.firstElementChild.focus();
}

const MENU = {
	async rename(conversation) {
		const title = await ask({ title: "Rename this conversation", ok: "Rename", value: conversation.title });
		if (title) save({ ...conversation, title });
		on.onRename();
	},

	async forget(conversation) {
		const text = `“${nameOf(conversation)}” stays on the gateway, but this browser cannot open it again.`;
		if (await ask({ title: "Forget it here?", text, ok: "Forget" })) on.onLeave(conversation);
	},

	async delete(conversation) {
		const text = `“${nameOf(conversation)}” is deleted on the gateway too. Nobody can bring it back.`;
		if (!await ask({ title: "Delete it for good?", text, ok: "Delete" })) return;
		if (await erase(conversation)) on.onLeave(conversation);
		else on.onTrouble("The gateway did not confirm that it is deleted. Try again in a moment.");
	},
};

/** @returns {Promise<boolean>} the gateway does not have it (any more) */
async function erase({ secret }) {
	const headers = { "Content-Type": "application/json", ...(token() && { "X-Lunar-Token": token() }) };
	const body = JSON.stringify({ session: secret }), signal = AbortSignal.timeout(DELETION_TIMEOUT);
	const answer = await fetch("/api/session", { method: "DELETE", headers, body, signal }).catch(() => null);
	return Boolean(answer?.ok) || answer?.status === 404;
}

/** Asks in a dialog; with `value`, for a text. @returns {Promise<string>} "" when cancelled */
function ask({ title, text = "", ok, value }) {
	const dialog = $("ask"), input = $("ask-input");
	$("ask-title").textContent = title;
	$("ask-text").textContent = text;
	$("ask-ok").textContent = ok;
	input.hidden = value === undefined;
	input.value = value ?? ok;
	dialog.returnValue = "";
	dialog.showModal();
	input.focus();
	input.select();
	return new Promise((answer) => {
		dialog.onclose = () => answer(dialog.returnValue && input.value.trim());
	});
}
