// A classic script that runs before the first paint: the chosen theme must not flash, and a sign-in token
// must leave the address before anything else happens.
"use strict";
(() => {
	const NEXT = { system: "light", light: "dark", dark: "system" };
	const { dataset } = document.documentElement;

	function keep(name, value) {
		try { localStorage.setItem(name, value); } catch { /* then it is asked again next time */ }
	}

	function showTheme() {
		try { dataset.theme = localStorage.getItem("lunar.theme") ?? "system"; } catch { dataset.theme ??= "system"; }
		const button = document.getElementById("theme");
		if (button) button.lastElementChild.textContent = `Theme: ${dataset.theme}`;
	}

	function decoded(text) {
		try { return decodeURIComponent(text); } catch { return text; /* a bare % */ }
	}

	function takeToken() {
		const found = /^#token=(.+)$/.exec(location.hash);
		if (!found) return;
		history.replaceState(null, "", location.pathname + location.search);
		keep("lunar.token", decoded(found[1]));
		dispatchEvent(new Event("lunar-token"));
	}

	showTheme();
	addEventListener("hashchange", takeToken);
	addEventListener("storage", showTheme);
	addEventListener("DOMContentLoaded", () => {
		showTheme();
		document.getElementById("theme").onclick = () => {
			dataset.theme = NEXT[dataset.theme];
			keep("lunar.theme", dataset.theme);
			showTheme();
		};
	});
	takeToken();
})();
