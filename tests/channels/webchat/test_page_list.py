"""The page in a real Chromium: the list of conversations beside the transcript, and what is done with one."""

from tests.channels.webchat.conftest import MINE, answered, say, text_of, until


async def choose(page, act):
    """Do what the menu of the first conversation names."""
    await page.locator("#list .more").first.click()
    await page.click(f"#menu [data-act={act}]")
    await page.click("#ask-ok")


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
