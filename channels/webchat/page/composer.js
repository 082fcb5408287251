// The field in which a message is written: its size, its draft, its list of commands.

const LIMIT = 64 * 1024; // bytes of UTF-8: what the gateway takes
const COMMANDS = Object.entries({
	"/new": "Begin anew: the model forgets what was said",
	"/stop": "Stop the reply that is being written",
	"/queue": "What becomes of messages that come during a reply",
	"/status": "How the gateway and this conversation are",
	"/help": "All commands",
});

const $ = (id) => document.getElementById(id);
const field = $("composer"), menu = $("commands"), send = $("send"), stop = $("stop");
const touch = matchMedia("(pointer: coarse)");
let on, running = false, chosen = 0, saving = 0;

/** @param {object} handlers `onSend(text)`, `onStop()`, `onDraft(text)` */
export function setUp(handlers) {
	on = handlers;
	field.oninput = changed;
	field.onkeydown = keyDown;
	field.onblur = () => { menu.hidden = true; };
	field.form.onsubmit = (event) => {
		event.preventDefault();
		submit();
	};
	stop.onclick = () => {
		on.onStop();
		focus();
	};
	addEventListener("pagehide", save);
}

/** Not on a touch screen, where it would open the keyboard. */
export function focus() {
	if (!touch.matches) field.focus();
}

/** @param {boolean} value a turn runs: send becomes stop */
export function setRunning(value) {
	const left = document.activeElement === stop && !value;
	running = value;
	refresh();
	if (left) focus();
}

export function setText(text) {
	field.value = text;
	changed();
	field.setSelectionRange(text.length, text.length);
}

/** Keeps the draft now, before another conversation is shown. */
export function save() {
	clearTimeout(saving);
	on.onDraft(field.value);
}

function changed() {
	chosen = 0;
	clearTimeout(saving);
	saving = setTimeout(save, 200);
	refresh();
}

function refresh() {
	const { value } = field, empty = !value.trim();
	const bytes = value.length > LIMIT / 4 ? new TextEncoder().encode(value).length : 0;
	$("hint").textContent = bytes > LIMIT * 0.9 ? `${(bytes / 1024).toFixed(1)} of 64 KiB${bytes > LIMIT ? ": too long to send" : ""}` : "";
	send.hidden = running && empty;
	send.disabled = empty || bytes > LIMIT;
	stop.hidden = !running;
	if (!CSS.supports("field-sizing", "content")) {
		field.style.height = "auto";
		field.style.height = `${field.scrollHeight}px`;
	}
	drawMenu();
}

function submit() {
	const text = field.value.trimEnd();
	if (send.disabled) return;
	setText("");
	save();
	on.onSend(text);
	focus();
}

/** This key is for the input method (an Enter or Escape that ends a composition): some browsers say 229 only. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

function keyDown(event) {
	if (isComposing(event) || event.shiftKey) return;
	if (!menu.hidden && menuKey(event.key)) event.stopPropagation();
	else if (event.key === "Enter" && !touch.matches) submit();
	else return;
	event.preventDefault();
}

// ---- the list of commands

const found = () => (/^\/\w*$/.test(field.value) ? COMMANDS.filter(([name]) => name.startsWith(field.value)) : []);

function drawMenu() {
	const list = found();
	menu.hidden = !list.length || list[0][0] === field.value;
	menu.replaceChildren(...list.map(([name, what], index) => {
		const row = document.createElement("li"), label = document.createElement("b");
		row.id = `command-${index}`;
		row.role = "option";
		row.ariaSelected = index === chosen;
		label.textContent = name;
		row.append(label, what);
		row.onpointerdown = (event) => {
			event.preventDefault(); // the field keeps the focus
			setText(`${name} `);
		};
		return row;
	}));
	field.setAttribute("aria-activedescendant", menu.hidden ? "" : `command-${chosen}`);
}

function menuKey(key) {
	const list = found(), step = { ArrowDown: 1, ArrowUp: -1 }[key];
	if (step) {
		chosen = (chosen + step + list.length) % list.length;
		drawMenu();
	} else if (key === "Tab" || key === "Enter") setText(`${list[chosen][0]} `);
	else if (key === "Escape") menu.hidden = true;
	else return false;
	return true;
}
