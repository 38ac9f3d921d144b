"""What a person meets in the browser: two languages, a state that survives, mistakes told in a line."""

import json
import time
from dataclasses import replace

import pytest
from browser import CHROMIUM, chromium, served
from replay import ollama, said, serving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def address(built_home):
    with serving(ollama(reply)) as (host, _), served(built_home, OLLAMA_HOST=host) as where:
        yield where


def reply(body):
    """A model that answers at once, or, asked about ranks, takes its time."""
    whole = said("The learning rate for LoRA is 2e-4 to start with [1].")
    if "Question: Which rank" not in body["messages"][-1]["content"]:
        return whole
    return replace(whole, body=(time.sleep(0.2) or piece for _ in range(100) for piece in whole.body[:-1]))


@pytest.fixture(scope="module")
def page(address):
    outside = []
    with chromium() as opened:
        opened.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "data:", "blob:")) else outside.append(request.url)
            ),
        )
        yield opened
    assert not outside, f"the page called {outside}"


def say(page, text):
    """Ask, and wait until this question has its whole answer (an earlier conversation may be coming back)."""
    page.wait_for_timeout(1000)
    page.fill("#question textarea", text)
    page.keyboard.press("Enter")
    page.wait_for_function(
        """text => {
            const asked = [...document.querySelectorAll('#conversation .user-row')];
            const whole = document.querySelectorAll('#conversation .bot-row .by').length;
            return asked.length && asked.at(-1).innerText.includes(text) && whole === asked.length;
        }""",
        arg=text,
        timeout=30_000,
    )


def test_a_conversation_survives_a_refresh_and_a_change_of_language(page, address):
    page.goto(f"{address}/zh-TW/")
    say(page, "LoRA 的學習率該設多少？")
    answer = page.inner_text("#conversation .bot-row .answer")
    assert "2e-4" in answer
    page.reload()
    page.wait_for_selector("#conversation .bot-row .answer")
    assert page.inner_text("#conversation .bot-row .answer") == answer
    page.click("a[data-lang=en]")
    page.wait_for_url(f"{address}/en/**")
    page.wait_for_selector("#conversation .bot-row .answer")
    assert page.inner_text("button:has-text('Send') >> nth=0") == "Send"


def test_the_tab_is_kept_in_the_address(page, address):
    page.goto(f"{address}/en/?tab=plan")
    page.wait_for_selector("#recommend", state="visible")
    page.reload()
    page.wait_for_selector("#recommend", state="visible")
    assert "tab=plan" in page.url


def test_a_question_outside_the_library_is_refused(page, address):
    page.goto(f"{address}/zh-TW/?tab=ask")
    page.wait_for_selector("#question textarea", state="visible")
    say(page, "台北明天天氣如何？")
    last = page.locator("#conversation .bot-row").last
    assert last.locator("a.cite").count() == 0
    last.locator(".sources a").first.click()  # the nearest page opens in the library; back leads back here
    page.wait_for_selector("article[data-id] .contents")
    page.go_back()
    page.wait_for_selector("#question textarea", state="visible")


def test_answers_are_rated_asked_again_and_the_ratings_taken_away(page, address):
    page.goto(f"{address}/zh-TW/?tab=ask")
    say(page, "What learning rate for LoRA?")
    page.locator("#conversation .bot-row [aria-label=不讚]").last.click()
    page.fill("#reason textarea", "too long")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reason", state="hidden")
    page.click("#model input")
    page.get_by_role("option", name="jin:latest").click()
    page.click("#conversation [aria-label=重試]")
    page.wait_for_selector("#conversation .by:has-text('jin:latest')")
    page.locator("#conversation .bot-row [aria-label=讚]").last.click()
    page.wait_for_selector("#beside a[download]:has-text('DPO')")
    page.reload()  # thumbs and model are still there
    page.wait_for_selector("#conversation [aria-label=Disliked]")
    assert page.locator("#conversation [aria-label=Liked]").count() == 1
    page.wait_for_function("document.querySelector('#model input')?.value.startsWith('jin:latest')")
    with page.expect_download() as taken:
        page.click("#beside a[download]:has-text('DPO')")
    assert '"reason": "too long"' in taken.value.path().read_text(encoding="utf-8")


def test_a_stopped_answer_stays_without_an_error(page, address):
    page.goto(f"{address}/en/?tab=ask")
    page.wait_for_function("document.querySelector('#model input')?.value.startsWith('jin:latest')")
    page.wait_for_timeout(500)  # the earlier conversation may be coming back
    page.fill("#question textarea", "Which rank for LoRA?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#conversation .bot-row:last-of-type .answer:has-text('2e-4')")
    page.click("button:has-text('Stop')")
    page.wait_for_selector("#conversation .note:has-text('Stopped')")
    page.wait_for_timeout(500)
    assert page.locator(".error:visible").count() == 0


def test_earlier_conversations_are_opened_and_deleted(page, address):
    page.goto(f"{address}/en/?tab=ask")
    listed = page.locator("#earlier li")
    page.wait_for_selector("#earlier li[aria-current]")
    before, title = listed.count(), listed.first.locator("button").first.inner_text()
    page.click("button:has-text('New conversation')")
    page.wait_for_selector("#conversation .bot-row", state="detached")
    page.reload()  # a new conversation stays a new one
    page.wait_for_selector("#earlier li")
    assert page.locator("#earlier li[aria-current], #conversation .bot-row").count() == 0
    page.click(f"#earlier button[data-open]:has-text('{title}')")
    page.wait_for_selector("#conversation .bot-row .by")
    delete = page.locator("#earlier li[aria-current] [data-drop]")
    delete.click()
    assert delete.inner_text() == "Delete?"  # once is a question
    delete.click()
    page.wait_for_function(
        "count => document.querySelectorAll('#earlier li').length === count", arg=before - 1
    )
    page.wait_for_selector("#conversation .bot-row", state="detached")


def test_markup_in_a_question_stays_text(page, address):
    page.goto(f"{address}/en/?tab=ask")
    page.wait_for_selector("#question textarea", state="visible")
    say(page, 'LoRA rank? <img src=x onerror="document.title=1"> ![x](http://evil.example/x.png)')
    assert page.locator("#conversation .user-row img").count() == 0
    assert page.title() == "Tunesmith"


def test_a_missing_data_file_is_told_in_a_line(page, address):
    page.goto(f"{address}/en/?tab=plan")
    page.fill("#data-path textarea", "/no/such/file.csv")
    page.click("#recommend")
    page.wait_for_selector(".error:visible")
    assert "/no/such/file.csv" in page.inner_text(".error:visible") and "Traceback" not in page.content()


def test_starting_without_a_file_says_what_is_needed(page, address):
    page.goto(f"{address}/zh-TW/?tab=plan")
    page.wait_for_selector("#start", state="visible")
    page.click("#start")
    page.wait_for_selector(".error:visible")
    assert "資料檔" in page.inner_text(".error:visible")


def test_the_library_is_read_searched_and_asked(page, address):
    page.goto(f"{address}/zh-TW/?tab=library")
    page.click(".tree details[data-topic=methods] summary")
    page.click('.tree a[data-page="methods/lora"]')
    page.wait_for_selector("article[data-id='methods/lora'] .contents li")
    page.click("a[data-lang=en]")  # the same page in the other language
    page.wait_for_selector("article[data-id='methods/lora']")
    assert page.inner_text(".library article h2 >> nth=0") == "LoRA" and "/en/" in page.url
    page.click(".library article a.cite >> nth=0")
    assert page.locator("#kb-sources + ol li a[href^=http]").count() > 3
    page.fill(".library input[type=search]", "overfitting remedies")
    page.click(".found a >> nth=0")
    page.wait_for_selector("article[data-id='troubleshooting/overfitting']")
    page.reload()
    page.wait_for_selector("article[data-id='troubleshooting/overfitting']")
    page.click(".ask-page")
    page.wait_for_selector("#question textarea", state="visible")
    assert "Overfitting" in page.input_value("#question textarea")


def test_a_file_that_is_not_there_takes_the_last_ones_findings_off_the_page(page, address, tmp_path):
    data = tmp_path / "reviews.tsv"
    data.write_text("label\ttext_a\n" + "".join(f"{n % 2}\treview number {n}\n" for n in range(20)), "utf-8")
    page.goto(f"{address}/en/?tab=data")
    page.fill("#room-path textarea", str(data))
    page.click("#room-check")
    page.wait_for_selector("#room-plan", state="visible")
    page.fill("#room-path textarea", "/no/such.csv")
    page.click("#room-check")
    page.wait_for_selector(".error:visible")
    page.wait_for_selector("#room-plan", state="hidden")
    assert page.locator(".error:visible").bounding_box()["y"] < 300, "the error is out of sight"


def test_rows_are_brought_in_with_their_columns_named_by_hand(page, address, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text(
        "ID,Frage,Antwort\n" + "".join(f"{n},Was ist {n}?,Das ist {n}.\n" for n in range(9)), "utf-8"
    )
    page.goto(f"{address}/zh-TW/?tab=data")
    page.click("#import >> text=從別處匯入資料")
    page.fill("#import-source textarea", str(source))
    page.click("#import-look")
    page.wait_for_selector("text=Frage（0.80）")
    assert page.input_value("#import-column-1 input") == "prompt"
    for column, role in ((1, "instruction"), (2, "output")):
        page.click(f"#import-column-{column} input")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(role)
        page.keyboard.press("Enter")
    page.click("#import-go")
    page.wait_for_selector("#import-told >> text=alpaca")
    assert "讀取 9 筆，寫入 9 筆，其中 9 筆可以訓練" in page.inner_text("#import-told")
    page.wait_for_selector(".checked >> text=alpaca")
    page.fill("#import-source textarea", "http://169.254.169.254/x")
    page.click("#import-look")
    page.wait_for_selector("#import .error:visible")


def test_a_file_is_mended_split_and_gets_its_card(page, address, tmp_path):
    rows = [{"text": f"review {n} of a room", "label": ("good", "bad")[n % 2]} for n in range(40)]
    rows[3]["text"] = "ring 0912-345-678, you dumbass"
    data = tmp_path / "reviews.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page.goto(f"{address}/en/?tab=data")
    page.fill("#room-path textarea", str(data))
    page.click("#room-check")
    page.click("#room-redact")
    page.wait_for_selector("text=reviews-redact.jsonl; it is checked below")
    page.click("#room-drop")
    page.wait_for_selector("text=Choose what to leave out first")
    page.locator("#room-kinds input").first.check()
    page.click("#room-drop")
    page.wait_for_selector("text=39 rows, of 40 read")
    page.click("#room-split > button")
    page.click("#room-do-split")
    page.wait_for_selector("#room-split-plan", state="visible")
    page.click("#room-card > button")
    page.fill("#room-licence textarea", "cc-by-4.0")
    page.click("#room-do-card")
    page.wait_for_selector(".dataset-card >> text=Licence of the source: cc-by-4.0")
    assert "split of reviews-redact-drop.jsonl" in page.inner_text(".dataset-card")
    page.click("#room-split-plan")
    page.wait_for_function("document.querySelector('#data-path textarea')?.value.endsWith('/train.jsonl')")


def test_a_described_task_is_asked_for_what_is_missing_and_becomes_a_plan_that_fits(page, address):
    page.goto(f"{address}/zh-TW/?tab=ask")
    page.click("button:has-text('新對話')")
    page.wait_for_selector("#conversation .bot-row", state="detached")
    say(page, "想微調一個繁體中文客服機器人，用 RTX 4090")
    assert "幾筆" in page.locator("#conversation .ask").last.inner_text()
    say(page, "大約四千筆")
    page.reload()  # what was asked and answered is kept
    page.wait_for_selector("#conversation .ask >> nth=1")
    say(page, "不會變")
    page.locator("#conversation a[href='#use-plan']").last.click()
    page.wait_for_selector("#plan-fit:has-text('放得下')")
    page.click("#recommend")  # the answers from the chat still count
    page.wait_for_selector(".plan .decision")
    assert page.locator("#plan-ask").is_hidden()
