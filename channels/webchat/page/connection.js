// A conversation's connection: a WebSocket that comes back by itself, and the outbox that it carries.

import { dropWaiting, keepWaiting, messageId, next as nextOf } from "./conversations.js";

const FIRST_RETRY = 250, LONGEST_RETRY = 1_500; // a gateway that is back is found within two seconds
const ANSWER_TIMEOUT = 8_000, PROBE_TIMEOUT = 5_000;
// Waiting cures none of these: a person has to do something.
const REFUSALS = ["unauthorized", "unsupported_protocol", "not_allowed", "hello_expected"];
// To a WebSocket, a gateway that is down and one that refuses the upgrade (403) look the same.
const UNREACHABLE = { message: "The gateway is down, or does not accept this page's address (http.allowed_origins)." };
const PASSING = ["rate_limited", "queue_full", "storage_unavailable", "shutting_down"];

/** Opens the connection and keeps it open, until it is closed or refused.
 *  @param {string} key of the conversation whose outbox is sent
 *  @param {object} on `hello()`: the first frame; `probe()`: one that gets an answer, if there is any; `onFrame(frame)`;
 *    `onMark(id, why, passing)`: a message was not taken; `onState("open" | "lost" | "refused", error)` */
export function connect(key, { hello, probe, onFrame, onState, onMark }) {
	const box = createOutbox(key, send, wake, onMark);
	let socket = null, timer = 0, failures = 0, heardAt = 0, ready = false, closed = false, trouble = null;

	function open() {
		detach();
		trouble = null;
		const own = socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
		timer = setTimeout(lose, ANSWER_TIMEOUT);
		own.onopen = () => own.send(JSON.stringify(hello()));
		own.onclose = ({ code }) => own === socket && lose(code);
		own.onmessage = ({ data }) => own === socket && hear(JSON.parse(data));
	}

	function hear(frame) {
		heardAt = Date.now();
		if (frame.type === "welcome") {
			clearTimeout(timer);
			ready = true;
			failures = 0;
			onState("open");
		} else if (frame.type === "error" && !ready) {
			if (REFUSALS.includes(frame.code)) return refuse(frame);
			trouble = frame;
			return;
		}
		box.hear(frame);
		onFrame(frame);
	}

	function detach() {
		const old = socket;
		box.halt();
		socket = null;
		ready = false;
		clearTimeout(timer);
		old?.close();
	}

	function close() {
		closed = true;
		detach();
	}

	function refuse(error) {
		close();
		onState("refused", error);
	}

	function lose(code) {
		detach();
		if (code === 1008 && !trouble) return refuse({ code: "not_allowed" });
		const delay = Math.min(FIRST_RETRY * 2 ** failures++, LONGEST_RETRY) * (0.75 + Math.random() / 4);
		timer = setTimeout(open, Math.max((trouble?.retry_after ?? 0) * 1000, delay));
		onState("lost", trouble ?? (failures > 6 ? UNREACHABLE : null));
	}

	// A page cannot ping: the answer to any cheap question shows that the connection lives.
	function wake() {
		if (closed || (!ready && (trouble?.retry_after || socket))) return;
		const asked = Date.now(), question = ready && probe();
		if (!question) return open();
		send(question);
		clearTimeout(timer);
		timer = setTimeout(() => heardAt < asked && lose(), PROBE_TIMEOUT);
	}

	function send(frame) {
		if (ready) socket.send(JSON.stringify(frame));
		return ready;
	}

	open();
	return { send, wake, close, flush: box.flush, retry: box.retry };
}

const couriers = new Map(); // by the keys of the conversations, which are not open, whose outboxes they carry

/** Sends what waits in a conversation that is not open.
 *  @param {object} on `hello()`; `isUp()`: the gateway is there, so that what is lost comes back; `onEnd()` */
export function sendCourier(key, { hello, isUp, onEnd }) {
	if (couriers.has(key) || !nextOf(key)) return;
	const end = () => (recallCourier(key), onEnd()), look = () => nextOf(key) || end();
	couriers.set(key, connect(key, {
		hello, probe: () => null, onFrame: look, onMark: look,
		onState: (state) => (state === "refused" || !isUp()) && end(),
	}));
}

export function recallCourier(key) {
	couriers.get(key)?.close();
	couriers.delete(key);
}

/** Sends what waits, oldest first and one at a time, so that a message that was put off is never overtaken. One stays
 *  here until it is acknowledged; its id makes a repeat harmless. */
function createOutbox(key, send, onSilence, onMark) {
	let started = false, sent = null, tries = 0, timer = 0;

	function halt() {
		started = false;
		clearTimeout(timer);
	}

	function flush() {
		if (!started || sent) return;
		sent = nextOf(key);
		if (!sent) return;
		const { id, text, of } = sent;
		send(of ? { type: "retry", id, of } : { type: "message", id, text });
		again(ANSWER_TIMEOUT, onSilence);
	}

	function again(delay, first = () => {}) {
		clearTimeout(timer);
		timer = setTimeout(() => {
			first();
			sent = null;
			flush();
		}, delay);
	}

	function settle(id) {
		dropWaiting(key, id);
		if (sent?.id === id) next();
	}

	function next() {
		clearTimeout(timer);
		sent = null;
		tries = 0;
		flush();
	}

	function fail({ id, code, message, retry_after: after }) {
		if (sent?.id !== id) return;
		const passing = PASSING.includes(code);
		onMark(id, message, passing);
		if (passing) return again(after ? after * 1000 : Math.min(1000 * 2 ** tries++, 30_000));
		if (sent.of) dropWaiting(key, id);
		else keepWaiting(key, { ...sent, failed: message });
		next();
	}

	function hear(frame) {
		const { type, id, event } = frame;
		if (type === "welcome") {
			started = true;
			next();
		} else if (type === "ack" || event?.id) settle(id ?? event.id);
		else if (type === "error") fail(frame);
		else if (type === "notice") {
			// A command that changes nothing may be answered without its id: the one on its way is meant.
			if (sent?.text?.startsWith("/")) frame.id ??= sent.id;
			settle(frame.id);
		}
	}

	/** Sends a message again now; after an error that does not pass it gets a new id. @returns {Waiting} */
	function retry({ failed, ...item }) {
		dropWaiting(key, item.id);
		if (failed) item.id = messageId();
		keepWaiting(key, item);
		next();
		return item;
	}

	return { halt, flush, hear, retry };
}
