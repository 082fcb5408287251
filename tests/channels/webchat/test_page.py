"""The page in a real Chromium, on real daemons. Any console error, dialog or foreign request fails a test."""

import hashlib
import json
import re
import socket
from pathlib import Path

import pytest

from tests.channels.webchat.conftest import MINE, REPLY, answered, picture, say, text_of, until
from tests.fakes.kept import both_stores
from tests.fakes.openai_behaviours import CallTools, Say, Stall
from tests.fakes.proxy import Proxy
from tests.fakes.xss_payloads import PAYLOADS


async def remember(page, daemon, times):
    """Let the page show a transcript: a question and its answer at each of the times."""
    secret = "S" * 43
    id = f"agent:main:webchat:session:{hashlib.sha256(secret.encode()).hexdigest()[:16]}"
    lines = []
    for number, ts in enumerate(times):
        lines.append({"role": "user", "content": f"question {number}", "ts": ts})
        lines.append({"role": "assistant", "content": f"answer {number}", "ts": ts})
    daemon.kept.put(id, "".join(json.dumps(line) + "\n" for line in lines).encode())
    await page.evaluate(
        """async (secret) => {
            const kept = await import("/conversations.js");
            kept.all().forEach((one) => kept.save({ ...one, secret }));
        }""",
        secret,
    )
    await page.reload()


async def scroll_up(page):
    """Scroll to the first of the remembered questions."""
    while (await text_of(page, MINE))[0] != "question 0":
        before = await page.locator(MINE).count()
        await page.evaluate("document.getElementById('scroller').scrollTop = 0")
        await until(page, f"document.querySelectorAll('{MINE}').length > {before}")


class TestTalking:
    async def test_a_question_a_tool_and_its_answer(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        page = await visit.page()
        assert await page.is_visible("#welcome")
        assert await page.is_visible("#demo")
        assert await page.evaluate("document.activeElement.id") == "composer"
        await picture(page, "empty-light")
        await say(page, "What time is it in Tokyo?")
        await answered(page, 1)
        chip = page.locator("details.tools")
        assert await chip.locator("summary").inner_text() == "Used get_current_datetime"
        await chip.locator("summary").click()
        shown = await chip.locator("pre").all_inner_texts()
        assert json.loads(shown[0]) == {"timezone": "Asia/Tokyo"}
        assert "JST" in shown[1]
        assert "JST" in (await text_of(page, REPLY))[-1]
        await say(page, "show me markdown")
        await answered(page, 2)
        assert await page.locator(f"{REPLY} table").count() == 1
        assert await page.locator(f"{REPLY} figure.code span[class]").count() > 3
        await picture(page, "conversation-light")

    async def test_a_reply_is_shown_while_it_is_written(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("Some **bold** words. " * 30, size=6, delay=0.02)
        page = await (await visits(daemon.port)).page()
        await say(page, "go")
        await page.wait_for_selector(f"#live {REPLY} strong")
        first = len(await page.inner_text(f"#live {REPLY} .body"))
        await until(page, f"document.querySelector('#live {REPLY} .body').innerText.length > {first}")
        assert await page.is_visible("#stop")
        await answered(page, 1)
        assert (await text_of(page, REPLY)) == [" ".join(("Some bold words. " * 30).split())]
        assert not await page.is_visible("#stop")

    @pytest.mark.parametrize("how", ["button", "Escape", "/stop"])
    async def test_stop(self, daemons, openai, visits, how):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("word " * 5000, size=5, delay=0.02)
        page = await (await visits(daemon.port)).page()
        await say(page, "go")
        await page.wait_for_selector(f"#live {REPLY}")
        if how == "button":
            await page.click("#stop")
        elif how == "Escape":
            await page.keyboard.press("Escape")
        else:
            await say(page, "/stop")
        await page.wait_for_selector(f"#events {REPLY}[data-state=stopped]")
        assert "Stopped" in await page.inner_text(f"{REPLY} footer")
        openai.reply = lambda body: Say("And on we go.")
        await say(page, "next")
        await answered(page, 2)
        assert (await text_of(page, REPLY))[-1] == "And on we go."

    async def test_focus_goes_to_the_field_when_the_stop_button_goes(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.script(Stall(3, Say("It waits for the release.")))
        page = await (await visits(daemon.port)).page()
        await say(page, "go")
        await page.wait_for_selector(f"#live {REPLY}")
        await page.focus("#stop")
        openai.release.set()
        await answered(page, 1)
        assert await page.evaluate("document.activeElement.id") == "composer"

    async def test_a_failed_turn_says_so_and_can_be_asked_again(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.script(
            CallTools([("nothing", "{}")]), CallTools([("nothing", "{}")]), CallTools([("nothing", "{}")])
        )
        page = await (await visits(daemon.port)).page()
        await say(page, "go")
        await page.wait_for_selector(".failure")
        openai.reply = lambda body: Say("Now it works.")
        await page.click("button[data-again]")
        await answered(page, 1)
        assert (await text_of(page, REPLY)) == ["Now it works."]

    async def test_messages_that_wait_are_marked_and_answered_together(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.script(Stall(3, Say("It waits for the release.")))
        openai.reply = lambda body: Say(f"all of: {body['messages'][-1]['content']}")
        page = await (await visits(daemon.port)).page()
        await say(page, "one")
        await page.wait_for_selector(f"#live {REPLY}")
        await say(page, "two")
        await say(page, "three")
        await until(page, f"document.querySelectorAll('#queue {MINE}[data-state=queued]').length === 2")
        openai.release.set()
        await answered(page, 2)
        assert (await text_of(page, REPLY))[-1] == "all of: two three"
        assert await text_of(page, MINE) == ["one", "two", "three"]


class TestConversations:
    async def test_new_switch_rename_forget_delete_and_reload(self, daemons, visits):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page()
        await say(page, "My name is Hao")
        await answered(page, 1)
        await page.click("#new")
        await say(page, "What's my name?")
        await answered(page, 1)
        assert "Hao" not in (await text_of(page, REPLY))[0]
        rows = page.locator("#list .open")
        assert await rows.count() == 2
        await rows.filter(has_text="My name is Hao").click()
        await answered(page, 1)
        assert await text_of(page, MINE) == ["My name is Hao"]
        await page.reload()
        await answered(page, 1)
        await say(page, "What's my name?")
        await answered(page, 2)
        assert "Hao" in (await text_of(page, REPLY))[1]

        row = page.locator("#list li").filter(has_text="My name is Hao")
        await row.locator(".more").click()
        await page.click("#menu [data-act=rename]")
        await page.fill("#ask-input", "Introductions")
        await page.click("#ask-ok")
        await until(page, "document.getElementById('title').innerText === 'Introductions'")
        await page.locator("#list li").filter(has_text="Introductions").locator(".more").click()
        await page.click("#menu [data-act=delete]")
        await page.click("#ask-ok")
        await until(page, "document.querySelectorAll('#list li').length === 1")
        assert len(daemon.kept.sessions()) == 1
        await page.locator("#list li .more").click()
        await page.click("#menu [data-act=forget]")
        await page.click("#ask-ok")
        await page.wait_for_selector("#welcome:not([hidden])")
        assert len(daemon.kept.sessions()) == 1

    async def test_two_tabs_on_one_conversation(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        one = await visit.page()
        await say(one, "My name is Hao")
        await answered(one, 1)
        two = await visit.page()
        await answered(two, 1)
        await say(two, "What's my name?")
        for page in (one, two):
            await answered(page, 2)
            assert await text_of(page, MINE) == ["My name is Hao", "What's my name?"]
            assert "Hao" in (await text_of(page, REPLY))[1]

    async def test_a_command_does_not_wait_in_another_tab(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        one, two = await visit.page(), await visit.page()
        await say(one, "My name is Hao")
        await answered(two, 1)
        await say(one, "/status")
        await one.wait_for_selector("#events .notice")
        await say(one, "What's my name?")
        await answered(two, 2)
        assert await text_of(two, MINE) == ["My name is Hao", "What's my name?"]

    async def test_another_tabs_word_that_comes_after_the_message_changes_nothing(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        page = await visit.page()
        await say(page, "My name is Hao")
        await answered(page, 1)
        await page.evaluate(
            """() => {
                const { id } = document.querySelector(".message[data-role=user]").dataset;
                const chat = Object.keys(localStorage).find((key) => key.startsWith("lunar.chat."));
                const key = `lunar.out.${chat.slice("lunar.chat.".length)}.${id}`;
                const newValue = JSON.stringify({ id, text: "My name is Hao", at: Date.now() });
                dispatchEvent(new StorageEvent("storage", { key, newValue }));
            }"""
        )
        assert await text_of(page, MINE) == ["My name is Hao"]

    async def test_a_full_storage_loses_nothing_and_shows_nothing_twice(self, daemons, visits):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page()
        await page.evaluate(
            """() => {
                for (let size = 1 << 22, number = 0; size;)
                    try { localStorage.setItem(`fill${number++}`, "x".repeat(size)); } catch { size >>= 1; }
            }"""
        )
        await say(page, "My name is Hao")
        await answered(page, 1)
        assert await page.locator("#list .open span").all_text_contents() == ["My name is Hao"]
        titles = await page.evaluate(
            """async () => {
                const kept = await import("/conversations.js");
                const fill = Object.keys(localStorage).filter((name) => name.startsWith("fill"));
                fill.forEach((name) => localStorage.removeItem(name));
                const [mine] = kept.all();
                kept.save({ ...mine, title: "There is room again" });
                return [kept.find(mine.key).title, ...kept.all().map(({ title }) => title)];
            }"""
        )
        assert titles == ["There is room again"] * 2

    @both_stores
    async def test_earlier_messages_are_loaded_on_the_way_up(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        page = await (await visits(daemon.port)).page()
        await remember(page, daemon, ["2026-01-02T03:04:05.000Z"] * 150)
        await answered(page, 20)
        seen = await text_of(page, MINE)
        assert seen[-1] == "question 149"
        await scroll_up(page)
        assert await text_of(page, MINE) == [f"question {number}" for number in range(150)]
        assert await text_of(page, REPLY) == [f"answer {number}" for number in range(150)]

    async def test_days_and_long_silences_are_marked_and_the_marks_stay(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        page = await (await visits(daemon.port)).page(timezone_id="UTC")
        times = [f"2026-01-{day:02}T{hour:02}:{minute}:00.000Z"
                 for day in range(1, 7) for hour in (9, 11) for minute in range(10, 60, 10)]  # fmt: skip
        await remember(page, daemon, times)
        await answered(page, 20)
        await scroll_up(page)
        stand_before = """(known) => [...document.querySelectorAll("#events > .time")].map((mark) => {
            if (known) return mark.known;
            mark.known = true;
            return mark.nextElementSibling.querySelector(".body").innerText;
        })"""
        assert await page.evaluate(stand_before, False) == [
            f"question {number}" for number in range(0, 60, 5)
        ]
        await say(page, "And today?")
        await answered(page, 61)
        assert await page.evaluate(stand_before, True) == [True] * 12 + [None]


class TestReconnecting:
    async def test_cut_again_and_again_in_the_middle_of_a_reply(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        reply = "".join(f"word{number} " for number in range(200))
        openai.reply = lambda body: Say(reply, size=8, delay=0.015)
        async with Proxy(daemon.port) as proxy:
            daemon_page = await visits(proxy.port)
            # The page's own origin is the proxy's: nothing but the port differs.
            page = await daemon_page.page()
            await say(page, "go")
            for _ in range(5):
                await page.wait_for_selector(f"#live {REPLY}")
                before = proxy.connections
                proxy.cut()
                await proxy.connected(before + 1)
            await answered(page, 1)
            assert await text_of(page, REPLY) == [reply.strip()]
            assert await text_of(page, MINE) == ["go"]
        assert len(openai.requests) == 1

    async def test_killed_in_the_middle_it_goes_on_by_itself(self, daemons, openai, visits):
        daemon = daemons(server=openai, LUNAR_HTTP__PORT=str(_free_port()))
        await daemon.start()
        openai.reply = lambda body: Say("lost " * 400, size=5, delay=0.02)
        page = await (await visits(daemon.port)).page()
        await say(page, "go")
        await page.wait_for_selector(f"#live {REPLY}")
        await daemon.kill()
        await until(page, "document.getElementById('status').innerText.includes('Reconnecting')")
        await picture(page, "reconnecting")
        openai.reply = lambda body: Say("Here is all of it.")
        await daemon.start()
        await answered(page, 1)
        assert await text_of(page, REPLY) == ["Here is all of it."]
        assert await text_of(page, MINE) == ["go"]
        await until(page, "document.getElementById('status').innerText === ''")

    @pytest.mark.parametrize("how", ["refused", "silent"])
    async def test_a_stop_while_there_is_no_connection_holds_once_there_is_one(
        self, daemons, openai, visits, how
    ):
        daemon = await daemons(server=openai).start()
        openai.script(Stall(3, Say("It never ends.")))
        async with Proxy(daemon.port) as proxy:
            page = await (await visits(proxy.port)).page()
            await say(page, "go")
            await page.wait_for_selector(f"#live {REPLY}")
            if how == "refused":
                proxy.refusing = True
                proxy.cut()
                await until(page, "document.getElementById('status').dataset.connection === 'lost'")
            else:
                proxy.half_open()
            await page.click("#stop")
            proxy.heal()
            proxy.cut()
            await page.wait_for_selector(f"#events {REPLY}[data-state=stopped]")

    async def test_what_is_typed_while_the_gateway_is_down_arrives_once(self, daemons, openai, visits):
        daemon = daemons(server=openai, LUNAR_HTTP__PORT=str(_free_port()))
        await daemon.start()
        openai.reply = lambda body: Say(f"got: {body['messages'][-1]['content']}")
        page = await (await visits(daemon.port)).page()
        await say(page, "first")
        await answered(page, 1)
        await daemon.kill()
        await until(page, "document.getElementById('status').innerText.includes('Reconnecting')")
        await say(page, "second")
        assert "kept" in await page.inner_text("#status")
        await page.fill("#composer", "a draft")
        await daemon.start()
        await answered(page, 2)
        assert (await text_of(page, REPLY))[1] == "got: second"
        await page.reload()
        await answered(page, 2)
        assert await text_of(page, MINE) == ["first", "second"]
        assert await page.input_value("#composer") == "a draft"
        assert len(openai.requests) == 2


class TestSigningIn:
    async def test_the_token_is_asked_for_and_kept(self, daemons, visits):
        daemon = await daemons(LUNAR_HTTP_TOKEN="open-sesame-1234").start()
        visit = await visits(daemon.port)
        page = await visit.page()
        assert await page.is_visible("#signin")
        await picture(page, "sign-in")
        await page.fill("#token", "wrong-one-5678")
        await page.press("#token", "Enter")
        await until(page, "document.getElementById('token').value === ''")
        await page.fill("#token", "open-sesame-1234")
        await page.press("#token", "Enter")
        await say(page, "hello")
        await answered(page, 1)
        again = await visit.page()
        await answered(again, 1)

    @pytest.mark.parametrize("token", ["open-sesame-1234", "open-sesame-100%"])
    async def test_a_sign_in_link_leaves_no_trace_in_the_address(self, daemons, visits, token):
        daemon = await daemons(LUNAR_HTTP_TOKEN=token).start()
        page = await (await visits(daemon.port)).page(f"/#token={token}")
        assert "sesame" not in page.url
        await say(page, "hello")
        await answered(page, 1)
        assert "sesame" not in json.dumps(daemon.log)


class TestKeyboard:
    async def test_enter_shift_enter_and_commands(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("ok")
        page = await (await visits(daemon.port)).page()
        await page.keyboard.type("one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await page.keyboard.press("Enter")
        await answered(page, 1)
        assert openai.requests[0].body["messages"][-1]["content"] == "one\ntwo"
        await page.keyboard.type("/st")
        await page.wait_for_selector("#commands:not([hidden])")
        offered = await page.locator("#commands [role=option]").all_inner_texts()
        assert any("/status" in text for text in offered)
        await picture(page, "commands")
        await page.keyboard.press("Escape")
        await page.fill("#composer", "/status")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".notice")
        assert "Model: fake-1" in await page.inner_text(".notice")

    @pytest.mark.parametrize("told", ["isComposing: true", "keyCode: 229"])
    async def test_a_key_that_ends_a_composition_does_nothing_else(self, daemons, openai, visits, told):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Stall(3, Say("It never ends."))
        page = await (await visits(daemon.port)).page()
        sent = []
        page.on("websocket", lambda made: made.on("framesent", lambda frame: sent.append(json.loads(frame))))
        await page.reload()
        await say(page, "go")
        await page.wait_for_selector(f"#live {REPLY}")
        await page.fill("#composer", "not yet")
        for key in ("Escape", "Enter"):
            await page.evaluate(
                f"""document.getElementById("composer").dispatchEvent(
                    new KeyboardEvent("keydown", {{ key: "{key}", bubbles: true, {told} }}))"""
            )
        await say(page, "/status")
        await page.wait_for_selector("#events .notice")
        assert [frame.get("text", frame["type"]) for frame in sent] == ["hello", "go", "/status"]


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_roles_names_and_contrast(self, daemons, visits, scheme):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page(color_scheme=scheme)
        await say(page, "show me markdown")
        await answered(page, 1)
        await say(page, "What time is it?")
        await answered(page, 2)
        await picture(page, f"conversation-{scheme}")
        report = await page.evaluate((Path(__file__).parent / "accessibility.js").read_text())
        assert report["nameless"] == []
        assert report["faint"] == []
        assert report["body"] >= 7
        assert report["log"] == 1
        assert report["fontSize"] >= 16

    async def test_a_phone(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        for width, name in ((390, "phone"), (320, "phone-small")):
            page = await visit.page(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True)
            await page.fill("#composer", "show me markdown")
            await page.click("#send")
            await answered(page, 1)
            await picture(page, name)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await page.click("#drawer")
            await until(page, "document.getElementById('side').getBoundingClientRect().left === 0")
            await picture(page, f"{name}-drawer")


class TestHostileText:
    """250+ payloads as user text, as model reply and as tool result: nothing runs, nothing leaves."""

    async def test_no_script_runs_and_no_request_leaves(self, daemons, openai, visits):
        assert len(PAYLOADS) > 200
        batches = [PAYLOADS[start : start + 40] for start in range(0, len(PAYLOADS), 40)]
        daemon = await daemons(server=openai).start()
        visit = await visits(daemon.port)
        page = await visit.page()
        await page.evaluate("globalThis.pwned = []; globalThis.alert = (...all) => pwned.push(all)")
        for number, batch in enumerate(batches):
            text = "\n\n".join(batch)
            openai.script(
                CallTools([("get_current_datetime", json.dumps({"timezone": text[:500]}))]),
                Say(text, size=4000),
            )
            await say(page, text[:60_000])
            await answered(page, number + 1)
        await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        for link in await page.locator("#events a").all():
            href = await link.get_attribute("href")
            if href is None:
                continue  # what it led to was taken away
            assert re.match(r"(https?:|mailto:|tel:)", href)
            assert await link.get_attribute("rel") == "noopener noreferrer"
        assert (
            await page.locator("#events")
            .locator("script, iframe, img, object, embed, svg[onload], style, link, base, form, meta")
            .count()
            == 0
        )
        await page.reload()
        await answered(page, 1)
        assert await page.evaluate("globalThis.pwned ?? []") == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestTrouble:
    @both_stores
    async def test_a_message_that_cannot_be_stored_says_why_and_is_sent_once_it_can(
        self, daemons, openai, visits
    ):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("ok")
        page = await (await visits(daemon.port)).page()
        daemon.kept.take_away()
        await say(page, "keep this")
        await page.wait_for_selector(f"{MINE}[data-state=failed] .why button")
        assert "cannot store" in await page.inner_text(f"{MINE} .why")
        assert openai.requests == []
        daemon.kept.bring_back()
        await page.click(f"{MINE} .why button")
        await answered(page, 1)
        assert await text_of(page, MINE) == ["keep this"]
        assert len(openai.requests) == 1

    async def test_asking_again_is_told_once_however_often_it_is_tried(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.script(*[CallTools([("nothing", "{}")])] * 3)
        page = await (await visits(daemon.port)).page()
        refusals = []

        def between(client):
            server = client.connect_to_server()

            def pass_on(text):
                frame = json.loads(text)
                if frame["type"] != "retry" or len(refusals) == 3:
                    return server.send(text)
                why = {"code": "storage_unavailable", "message": "There is no room.", "retry_after": 0.01}
                refusals.append({"type": "error", "id": frame["id"], **why})
                return client.send(json.dumps(refusals[-1]))

            client.on_message(pass_on)

        await page.route_web_socket("**/ws", between)
        await page.reload()
        await say(page, "go")
        await page.click("button[data-again]")
        await answered(page, 1)
        assert len(refusals) == 3
        notices = await page.locator("#events .notice:not(.failure)").all_inner_texts()
        assert notices == ["There is no room. It is sent again by itself."]


class TestHands:
    async def test_copying_code_and_messages(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("Try:\n\n```python\nprint(1)\n```\n")
        visit = await visits(daemon.port)
        page = await visit.page(permissions=["clipboard-read", "clipboard-write"])
        await say(page, "go")
        await answered(page, 1)
        await page.click("figure.code .copy")
        await until(page, "document.querySelector('figure.code .copy.done')")
        assert (await page.evaluate("navigator.clipboard.readText()")).strip() == "print(1)"
        await page.click(f"{REPLY} footer .copy")
        await until(page, f"document.querySelector('{REPLY} footer .copy.done')")
        assert "```python" in await page.evaluate("navigator.clipboard.readText()")

    async def test_the_theme_is_chosen_and_kept(self, daemons, visits):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page(color_scheme="light")
        colour = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(colour)
        for _ in range(3):
            if await page.evaluate(colour) != light:
                break
            await page.click("#theme")
        dark = await page.evaluate(colour)
        assert dark != light
        await page.reload()
        assert await page.evaluate(colour) == dark
