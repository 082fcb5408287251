"""The page in a real Chromium: the list of conversations beside the transcript, and what is done with one."""

import pytest

from tests.channels.webchat.conftest import MINE, REPLY, answered, say, text_of, until
from tests.fakes.openai_behaviours import Say, Stall


async def choose(page, act):
    """Do what the menu of the first conversation names."""
    await page.locator("#list .more").first.click()
    await page.click(f"#menu [data-act={act}]")
    await page.click("#ask-ok")


async def keep_waiting(page, text):
    """Put a message into the outbox of the conversation with a title, and its key into `waiting`."""
    await page.evaluate(
        """async (text) => {
            const kept = await import("/conversations.js");
            globalThis.waiting = kept.all().find(({ title }) => title).key;
            kept.keepWaiting(waiting, { id: kept.messageId(), text, at: Date.now() });
        }""",
        text,
    )


async def test_a_title_ends_with_a_whole_letter(daemons, visits):
    daemon = await daemons().start()
    page = await (await visits(daemon.port)).page()
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
    await say(page, "a" + family * 70)
    await until(page, f"document.getElementById('title').textContent === 'a' + '{family}'.repeat(59)")


FOCUSED = "document.activeElement.id || document.activeElement.className"


class TestDrawing:
    @pytest.fixture
    async def page(self, daemons, openai, visits):
        """Two conversations; in the second one, which is open, a reply is being written until the release."""
        daemon = await daemons(server=openai).start()
        page = await (await visits(daemon.port)).page()
        await say(page, "first")
        await answered(page, 1)
        await page.click("#new")
        openai.reply = lambda body: Stall(3, Say("It waits for the release."))
        await say(page, "second")
        await page.wait_for_selector(f"#live {REPLY}")
        return page

    async def test_a_press_outlives_the_end_of_a_reply(self, openai, page):
        await page.hover("#list .open >> text=first")
        await page.mouse.down()
        openai.release.set()
        await answered(page, 1)
        await page.mouse.up()
        await until(page, "document.getElementById('title').textContent === 'first'")

    async def test_focus_and_an_open_menu_outlive_the_end_of_a_reply(self, openai, page):
        await page.locator("#list .more").first.focus()
        await page.keyboard.press("Enter")
        openai.release.set()
        await answered(page, 1)
        assert await page.evaluate("document.activeElement.dataset.act") == "rename"
        await page.keyboard.press("Escape")
        assert await page.evaluate(FOCUSED) == "icon more"

    async def test_focus_follows_a_row_that_moves(self, page):
        await page.locator("#list .more").last.focus()
        await page.evaluate(
            """async () => {
                const kept = await import("/conversations.js");
                const [second, first] = kept.all();
                kept.touch(first, "");
                kept.drawList(second);
            }"""
        )
        assert await page.locator("#list .open span").all_text_contents() == ["first", "second"]
        assert await page.evaluate("document.activeElement.ariaLabel") == "More about “first”"

    async def test_its_cost_does_not_grow_with_the_list(self, page):
        looks, untouched, changed, rows = await page.evaluate(
            """async () => {
                const kept = await import("/conversations.js"), { keys } = Object;
                const list = document.getElementById("list"), watch = new MutationObserver(() => {});
                const touched = () => watch.takeRecords().map((one) => one.target.closest("li").dataset.key);
                for (let number = 0; number < 200; number++) kept.create();
                const [open] = kept.all();
                kept.drawList(open);
                watch.observe(list, { attributes: true, childList: true, subtree: true });
                let looks = 0;
                Object.keys = (what) => (looks += what === localStorage, keys(what));
                kept.drawList(open);
                Object.keys = keys;
                const none = touched();
                kept.save({ ...open, title: "renamed" });
                kept.drawList(open);
                return [looks, none, new Set(touched()).size, list.children.length];
            }"""
        )
        assert looks <= 2
        assert untouched == []
        assert changed == 1
        assert rows == 202


class TestSendingElsewhere:
    """What waits in a conversation that is not open."""

    async def test_a_connection_that_is_lost_on_the_way_comes_back(self, daemons, openai, visits):
        daemon = await daemons(server=openai).start()
        page = await (await visits(daemon.port)).page()
        await say(page, "first")
        await answered(page, 1)
        await page.click("#new")
        await until(page, "document.getElementById('status').dataset.connection === 'open'")
        await keep_waiting(page, "second")
        secret = await page.evaluate("JSON.parse(localStorage['lunar.chat.' + waiting]).secret")
        lost = []

        def between(client):
            server = client.connect_to_server()

            def pass_on(text):
                if secret not in text or lost:
                    return server.send(text)
                lost.append(text)
                return client.close()

            client.on_message(pass_on)

        await page.route_web_socket("**/ws", between)
        await page.reload()
        await until(page, "!document.getElementById('list').textContent.includes('not sent yet')")
        assert len(lost) == 1

    async def test_another_tab_that_is_gone_leaves_it_to_this_one(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        page = await visit.page()
        await say(page, "first")
        await answered(page, 1)
        await page.click("#new")
        other = await visit.page()
        await keep_waiting(other, "second")
        await other.close()
        await until(page, "document.getElementById('list').textContent.includes('not sent yet')")
        await until(page, "!document.getElementById('list').textContent.includes('not sent yet')")


class TestDeleting:
    async def test_what_the_gateway_does_not_have_is_gone_here_too(self, daemons, visits):
        daemon = await daemons().start()
        visit = await visits(daemon.port)
        page = await visit.page()
        await page.fill("#composer", "never sent")
        await choose(page, "delete")
        await until(page, "document.getElementById('composer').value === ''")
        assert await page.locator("#events .notice").count() == 0
        # Chromium itself writes what status a fetch got; no page can prevent it.
        assert [complaint for complaint in visit.complaints if "404" not in complaint] == []
        visit.complaints.clear()

    async def test_a_gateway_that_does_not_answer_is_not_waited_for_without_end(self, daemons, visits):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page()
        await say(page, "My name is Hao")
        await answered(page, 1)
        await page.route("**/api/session", lambda route: None)
        await page.evaluate(
            """() => { AbortSignal.timeout = () => {
                const made = new AbortController();
                globalThis.expire = () => made.abort();
                return made.signal;
            }; }"""
        )
        await choose(page, "delete")
        await until(page, "globalThis.expire")
        await page.evaluate("expire()")
        await page.wait_for_selector("#events .notice >> text=did not confirm that it is deleted")
        assert await text_of(page, MINE) == ["My name is Hao"]

    @pytest.mark.parametrize("act", ["forget", "delete"])
    async def test_the_keyboard_goes_on_where_something_is(self, daemons, visits, act):
        daemon = await daemons().start()
        page = await (await visits(daemon.port)).page()
        for number in range(3):
            await page.click("#new")
            await say(page, f"number {number}")
            await answered(page, 1)
        for which, there in (("number 0", "new"), ("number 2", "composer")):
            await page.locator("#list li").filter(has_text=which).locator(".more").click()
            await page.click(f"#menu [data-act={act}]")
            await page.click("#ask-ok")
            await page.locator("#list li").filter(has_text=which).wait_for(state="detached")
            assert await page.evaluate(FOCUSED) == there


async def test_the_drawer_of_a_narrow_screen_takes_the_focus_and_gives_it_back(daemons, visits):
    daemon = await daemons().start()
    page = await (await visits(daemon.port)).page(viewport={"width": 600, "height": 780})
    for leave in (lambda: page.mouse.click(590, 400), lambda: page.keyboard.press("Escape")):
        await page.focus("#drawer")
        await page.keyboard.press("Enter")
        assert await page.evaluate(FOCUSED) == "new"
        await leave()
        assert await page.evaluate(FOCUSED) == "drawer"
