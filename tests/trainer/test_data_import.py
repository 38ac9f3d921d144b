"""`data import`: columns proposed and named, every row counted, the same import again; files, folders, queries."""

import json
import sqlite3
from contextlib import closing

import pytest
import yaml
from written import lines_of, write

from trainer.config import UserError
from trainer.data import check, rebuild
from trainer.data.files import dedupe_file
from trainer.data.imports import bring_in, file_name, look, repeat
from trainer.data.mapping import propose


def proposed(rows, **given):
    mapping = propose(rows, given, "d.csv")
    return mapping.detected.format, {m.role: (m.column, m.confidence, m.why) for m in mapping.matches}


# columns


def test_known_names_are_sure_synonyms_less_and_guesses_least():
    assert proposed([{"text": "a", "label": "b"}])[1]["label"] == ("label", 1.0, "name")
    assert proposed([{"review": "a", "label": "b"}])[1]["text"] == ("review", 0.9, "name")
    assert proposed([{"Frage": "a", "Antwort": "b"}]) == (
        "prompt-completion", {"prompt": ("Frage", 0.8, "synonym"), "completion": ("Antwort", 0.8, "synonym")},
    )  # fmt: skip
    kind, columns = proposed([{"a": f"is room {n} fine?", "b": f"room {n} is."} for n in range(9)])
    assert (kind, columns["prompt"]) == ("prompt-completion", ("a", 0.4, "values"))


def test_confidence_falls_with_the_rows_whose_value_does_not_fit():
    assert proposed([{"text": "a", "label": "b"}, {"text": "a", "label": ""}])[1]["label"][1] == 0.5


def test_the_proposal_that_finds_a_use_for_most_columns_wins():
    rows = [{"body": f"text number {n}", "kategorie": "ab"[n % 2]} for n in range(20)]
    assert proposed(rows)[1]["label"] == ("kategorie", 0.8, "synonym")
    scores = [{"text": f"text number {n}", "score": n / 7} for n in range(20)]
    assert proposed(scores)[0] == "text"  # twenty scores of twenty rows are no labels


def test_what_is_given_wins_and_takes_the_format_with_it():
    row = {"Frage": "a", "Antwort": "b"}
    assert proposed([row], instruction="Frage", output="Antwort")[0] == "alpaca"
    chat = {"messages": [{"role": "user", "content": "x"}], "body": "q", "kind": "b"}
    kind, columns = proposed([chat], text="body", label="kind")
    assert (kind, set(columns)) == ("text+label", {"text", "label"})


def test_a_wrong_mapping_is_refused_with_the_choices():
    for given, said in (({"text": "no"}, "choose one of a"), ({"foo": "a"}, "choose one of prompt")):
        with pytest.raises(UserError, match=said):
            propose([{"a": "x"}], given, "d.csv")
    with pytest.raises(UserError, match="--map prompt=COLUMN"):
        propose([{"x": 1}], {}, "d.csv")


# files


def test_a_file_is_imported_with_its_columns_named_and_all_others_kept(tmp_path):
    source = write(tmp_path / "in.csv", "Frage;Antwort;Kunde\nWas?;Das.;7\nWer?;;8\n")
    report = bring_in(
        str(source), tmp_path / "data" / "rows.jsonl", {}, {"instruction": "Frage", "output": "Antwort"}, {}
    )
    assert lines_of(tmp_path / "data" / "rows.jsonl") == [
        {"instruction": "Was?", "output": "Das.", "Kunde": "7"},
        {"instruction": "Wer?", "output": "", "Kunde": "8"},
    ]
    counts = {"read": 2, "written": 2, "trainable": 1, "no_answer": 1}
    assert (report.made.counts, report.places) == (counts, {"no_answer": ["in.csv:3"]})


def test_an_unused_column_that_would_be_mistaken_gets_another_name(tmp_path):
    source = write(
        tmp_path / "in.jsonl", [{"messages": [{"role": "user", "content": "x"}], "q": "a b", "a": "c d"}]
    )
    bring_in(str(source), tmp_path / "rows.jsonl", {}, {"prompt": "q", "completion": "a"}, {})
    assert set(lines_of(tmp_path / "rows.jsonl")[0]) == {"prompt", "completion", "messages_unused"}
    assert check(tmp_path / "rows.jsonl").format == "prompt-completion"


def test_a_guess_is_shown_and_not_acted_upon(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"a": f"is {n} fine?", "b": f"{n} is."} for n in range(9)])
    with pytest.raises(UserError, match="--map prompt=a --map completion=b"):
        bring_in(str(source), tmp_path / "rows.jsonl", {}, {}, {})
    assert look(str(source), {}, {}, {}).parts[0][1].guessed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_broken_lines_are_left_out_and_counted(tmp_path):
    source = write(
        tmp_path / "in.jsonl", '{"text": "a", "label": 1}\n{"text": \n[1]\n{"text": "b", "label": 0}\n'
    )
    made = bring_in(str(source), tmp_path / "rows.jsonl", {}, {}, {}).made
    assert made.counts == {
        "read": 4, "written": 2, "trainable": 2, "broken_json": 1, "not_object": 1,
    }  # fmt: skip


def test_columns_inside_objects_and_lists_in_texts_are_reached(tmp_path):
    rows = [{"review": "a b", "sentiment": {"name": "good"}, "id": 1}]
    bring_in(
        str(write(tmp_path / "in.jsonl", rows)), tmp_path / "r.jsonl", {}, {"label": "sentiment.name"}, {}
    )
    assert lines_of(tmp_path / "r.jsonl")[0]["label"] == "good"
    turns = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    cell = turns.replace('"', '""')
    made = bring_in(
        str(write(tmp_path / "in.csv", f'id,messages\n1,"{cell}"\n')), tmp_path / "m.jsonl", {}, {}, {}
    ).made
    assert (made.formats, made.counts["trainable"]) == ({"m.jsonl": "messages"}, 1)


def test_limit_and_file_names(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": f"t{n}", "label": n % 2} for n in range(2000)])
    assert bring_in(str(source), tmp_path / "r.jsonl", {}, {}, {}, limit=1200).made.counts["written"] == 1200
    names = [
        "my data.csv",
        "hf:own/set:en@abc#train",
        "sql:SELECT 1",
        "rest:https://x.org/a/b?c=1",
        "web:https://x.org https://y.org",
    ]
    assert [file_name(name) for name in names] == [
        "my-data.jsonl", "own-set-en-abc-train.jsonl", "query.jsonl", "x.org-a-b.jsonl", "x.org.jsonl",
    ]  # fmt: skip


def test_nothing_is_left_of_an_import_that_was_interrupted(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"text": f"t{n}", "label": n % 2} for n in range(3000)])

    def stop(read, total):
        if read > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_in(str(source), tmp_path / "data" / "r.jsonl", {}, {}, {}, seen=stop)
    assert list((tmp_path / "data").iterdir()) == []


# the same again


def test_an_import_is_repeated_and_says_whether_the_content_changed(tmp_path):
    rows = [{"Frage": f"q{n}", "Antwort": f"a{n}"} for n in range(5)]
    source = write(tmp_path / "in.jsonl", rows)
    record = tmp_path / "data_source.yaml"
    bring_in(str(source), tmp_path / "rows.jsonl", {}, {"prompt": "Frage", "completion": "Antwort"}, {})
    before = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").unlink()
    assert [report.changed for report in repeat(record, {})] == ["same"]
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    write(source, rows[::-1])
    assert repeat(record, {})[0].changed == "order"
    write(source, rows[:4])
    again = repeat(record, {})[0]
    assert (again.changed, again.before, again.made.counts["read"]) == ("content", 5, 4)


def test_a_record_written_by_hand_is_carried_out(tmp_path):
    write(tmp_path / "in.jsonl", [{"Frage": "q", "Antwort": "a"}])
    recipe = {
        "imports": [
            {
                "source": "in.jsonl",
                "map": {"prompt": "Frage", "completion": "Antwort"},
                "outputs": {"r.jsonl": ""},
            }
        ]
    }
    write(tmp_path / "data_source.yaml", yaml.safe_dump(recipe))
    assert repeat(tmp_path / "data_source.yaml", {})[0].changed == "new"
    assert lines_of(tmp_path / "r.jsonl") == [{"prompt": "q", "completion": "a"}]


@pytest.mark.parametrize(
    "text",
    ["imports: 3", "imports:\n- {sauce: a}", "[1", "imports:\n- {source: a.jsonl, outputs: {../x.jsonl: ''}}", "steps: []", "!!python/object:os.system {}"],
)  # fmt: skip
def test_a_damaged_or_hostile_record_is_one_line(tmp_path, text):
    record = write(tmp_path / "data_source.yaml", text)
    with pytest.raises(UserError, match=r"data_source\.yaml"):
        repeat(record, {})


def test_the_licence_beside_the_source_goes_into_the_record(tmp_path):
    source = write(tmp_path / "a" / "in.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    write(tmp_path / "a" / "LICENSE", "MIT License\n\nPermission is hereby granted")
    report = bring_in(str(source), tmp_path / "b" / "rows.jsonl", {}, {}, {})
    assert report.made.facts == {"licence": "mit"}
    assert "licence_unknown" not in [item.kind for item in check(tmp_path / "b" / "rows.jsonl").findings]


def test_steps_and_imports_stand_in_one_record(tmp_path):
    source = write(
        tmp_path / "in.jsonl",
        [{"text": "a", "label": 1}, {"text": "a", "label": 1}, {"text": "b", "label": 0}],
    )
    bring_in(str(source), tmp_path / "d" / "rows.jsonl", {}, {}, {})
    dedupe_file(tmp_path / "d" / "rows.jsonl", tmp_path / "d" / "clean.jsonl")
    assert repeat(tmp_path / "d" / "data_source.yaml", {})[0].changed == "same"
    assert len(rebuild(tmp_path / "d")) == 1


# folders


def test_a_folder_of_mixed_files_gives_a_file_a_format(tmp_path):
    folder = tmp_path / "in"
    write(folder / "a.csv", "text,label\nx,1\n")
    write(folder / "deep" / "b.jsonl", [{"review": "y", "label": 0}])
    write(folder / "c.json", '[{"prompt": "p", "completion": "c"}]')
    write(
        folder / "note.ann", "T1\tPerson 0 3\tLin\nT2\tCity 13 16;17 19\tTai ei\nR1\tLives Arg1:T1 Arg2:T2\n"
    )
    write(folder / "note.txt", "Lin lives in Tai pei\n")
    write(folder / "README.md", "# about")
    write(folder / "x.bin", "?")
    write(folder / ".hidden.csv", "text,label\nz,1\n")
    write(tmp_path / "outside.csv", "text,label\nz,1\n")
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    report = bring_in(str(folder), tmp_path / "out" / "all.jsonl", {}, {}, {})
    assert report.rows == {"all-text-label.jsonl": 2, "all-prompt-completion.jsonl": 1, "all-spans.jsonl": 1}
    told = " ".join(note["en"] for note in report.notes)
    assert (
        all(name in told for name in ("README.md", "x.bin", "link.csv", "note.txt")) and ".hidden" not in told
    )
    assert lines_of(tmp_path / "out" / "all-spans.jsonl")[0]["entities"] == [
        [0, 3, "Person"],
        [13, 19, "City"],
    ]
    assert set(report.made.facts["files"]) == {"a.csv", "c.json", "deep/b.jsonl", "note.ann"}
    assert [again.changed for again in repeat(tmp_path / "out" / "data_source.yaml", {})] == ["same"]
    only = bring_in(str(folder), tmp_path / "out" / "csv.jsonl", {"only": "*.csv"}, {}, {})
    assert only.rows == {"csv.jsonl": 1}


# every data file of the shared folder: (format, rows that train, rows read)
SHARED = {
    "banking77/banking_data__train.csv": ("text+label", 10003, 10003),
    "banking77/categories.json": ("text", 77, 77),
    "bipia_injection/benchmark__email__train.jsonl": ("reading", 50, 50),
    "bipia_injection/code_attack_train.json": ("text+label", 50, 50),
    "bipia_injection/text_attack_train.json": ("text+label", 75, 75),
    "blns/blns.json": ("text", 513, 515),
    "blns/blns.txt": ("text", 78, 78),
    "chnsenticorp/dev.tsv": ("text+label", 1200, 1200),
    "chnsenticorp/train.tsv": ("text+label", 9600, 9600),
    "clinc_oos/data_small.json": ("text+label", 16200, 16200),
    "clinc_oos/domains.json": ("text+label", 150, 150),
    "drcd_dev/DRCD_dev.json": ("reading", 3524, 3524),
    "ftfy_mojibake/in-the-wild.json": ("prompt-completion", 70, 70),
    "ftfy_mojibake/known-failures.json": ("prompt-completion", 10, 10),
    "ftfy_mojibake/negative.json": ("prompt-completion", 31, 31),
    "ftfy_mojibake/synthetic.json": ("prompt-completion", 30, 30),
    "gsm8k/grade_school_math__data__train.jsonl": ("prompt-completion", 7473, 7473),
    "hf_course/chapters": ("text", 1740, 1740),
    "llamafactory_demo/alpaca_en_demo.json": ("alpaca", 999, 999),
    "llamafactory_demo/alpaca_zh_demo.json": ("alpaca", 1000, 1000),
    "llamafactory_demo/c4_demo.jsonl": ("text", 300, 300),
    "llamafactory_demo/dpo_en_demo.json": ("preference", 300, 300),
    "llamafactory_demo/dpo_zh_demo.json": ("preference", 300, 300),
    "llamafactory_demo/glaive_toolcall_en_demo.json": ("sharegpt", 300, 300),
    "llamafactory_demo/glaive_toolcall_zh_demo.json": ("sharegpt", 300, 300),
    "llamafactory_demo/identity.json": ("alpaca", 91, 91),
    "llamafactory_demo/kto_en_demo.json": ("kto", 300, 300),
    "llamafactory_demo/reason_tool_use_demo_50.jsonl": ("messages", 50, 50),
    "llamafactory_demo/v1_dpo_demo.jsonl": ("preference", 10, 10),
    "llamafactory_demo/v1_sft_demo.jsonl": ("messages", 500, 500),
    "llamafactory_demo/wiki_demo.txt": ("text", 30, 30),
    "oasst_zh/oaast_rm_zh.json": ("preference", 772, 775),
    "oasst_zh/oaast_sft_zh.json": ("alpaca", 689, 689),
    "oasst_zh/self_cognition.json": ("alpaca", 80, 80),
    "peopledaily_ner/dev.txt": ("bio", 4631, 4631),
    "peopledaily_ner/train.txt": ("bio", 15000, 15000),
    "wnut17_ner/emerging.dev.conll": ("bio", 1009, 1009),
    "wnut17_ner/emerging.test.annotated": ("bio", 1287, 1287),
    "wnut17_ner/wnut17train.conll": ("bio", 3394, 3394),
    "xquad/xquad.en.json": ("reading", 1190, 1190),
    "xquad/xquad.zh.json": ("reading", 1190, 1190),
}
ABOUT = {"README.md", "data__README.md", "dataset_info.json"}  # these tell about data, and are none


@pytest.mark.parametrize("name", SHARED)
def test_every_public_file_is_imported_with_its_format_and_no_row_lost(shared_data, tmp_path, name):
    report = bring_in(str(shared_data / name), tmp_path / "rows.jsonl", {}, {}, {})
    counts = dict(report.made.counts)
    assert (report.made.formats, counts["trainable"], counts["read"]) == (
        {"rows.jsonl": SHARED[name][0]},
        *SHARED[name][1:],
    )
    with (tmp_path / "rows.jsonl").open() as file:
        assert sum(1 for _ in file) == counts["written"] == counts["read"]
    told = sum(count for kind, count in counts.items() if kind in ("empty_text", "same_answers", "no_answer"))
    assert counts["read"] - counts["trainable"] == told


def test_no_public_data_file_is_forgotten_above(shared_data):
    kinds = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".conll", ".annotated")
    there = {
        path.relative_to(shared_data).as_posix()
        for path in shared_data.rglob("*")
        if path.suffix in kinds and path.name not in ABOUT and not path.name.startswith(("LICENSE", "SOURCE"))
    }
    assert there == set(SHARED) - {"hf_course/chapters"}


# queries


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER, body TEXT, kategorie TEXT, turns TEXT)")
        rows = [(n, f"review number {n}", "ab"[n % 2], None) for n in range(3000)]
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    return path


def query(text, url, out, **options):
    return bring_in(f"sql:{text}", out, options, {}, {"TUNESMITH_SQL_URL": url, "OTHER": url})


def test_a_query_is_imported_with_parameters(database, tmp_path):
    out = tmp_path / "d" / "rows.jsonl"
    sql = "SELECT body, kategorie FROM reviews WHERE id >= :first ORDER BY id"
    report = query(sql, f"sqlite:///{database}", out, **{"params.first": "10", "url_env": "OTHER"})
    assert report.made.counts["written"] == 2990 and report.notes == []
    assert lines_of(out)[0] == {"text": "review number 10", "label": "a"}
    environ = {"OTHER": f"sqlite:///{database}"}
    assert repeat(tmp_path / "d" / "data_source.yaml", environ)[0].changed == "same"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM reviews WHERE id = 2999")
        connection.commit()
    assert repeat(tmp_path / "d" / "data_source.yaml", environ)[0].changed == "content"


def test_a_query_cannot_write(database, tmp_path):
    before = database.read_bytes()
    for sql in (
        "DELETE FROM reviews", "/* SELECT */ DROP TABLE reviews", "SELECT 1; DELETE FROM reviews",
        "WITH x AS (SELECT 1) DELETE FROM reviews", "ATTACH 'x.db' AS y", "PRAGMA query_only = OFF",
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"^sql: "):
            query(sql, f"sqlite:///{database}", tmp_path / "r.jsonl")
    assert database.read_bytes() == before


def test_a_password_is_in_no_message_and_in_no_record(database, tmp_path):
    secret = "geheim/99"
    for url in (
        f"postgresql+psycopg://me:{secret}@127.0.0.1:9/db", f"nosuch://me:{secret}@h/db", f"::{secret}",
        f"sqlite:////nowhere/{secret}.db",
    ):  # fmt: skip
        with pytest.raises(UserError) as told:
            query("SELECT 1 AS text", url, tmp_path / "r.jsonl")
        if "sqlite" not in url:
            assert secret not in str(told.value)
    query("SELECT body AS text FROM reviews", f"sqlite:///{database}?cache=private", tmp_path / "r.jsonl")
    assert "cache=private" not in (tmp_path / "data_source.yaml").read_text()


def test_a_query_may_stand_in_a_file(database, tmp_path, monkeypatch):
    write(tmp_path / "q.sql", "-- all of them\nSELECT body AS text FROM reviews ORDER BY id;\n")
    monkeypatch.chdir(tmp_path)
    made = query("q.sql", f"sqlite:///{database}", tmp_path / "d" / "r.jsonl").made
    assert (made.source, made.counts["written"]) == (f"sql:{tmp_path.resolve()}/q.sql", 3000)


def test_a_missing_database_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no such SQLite file"):
        query("SELECT 1", f"sqlite:///{tmp_path}/no.db", tmp_path / "r.jsonl")
    with pytest.raises(UserError, match="set TUNESMITH_SQL_URL"):
        bring_in("sql:SELECT 1", tmp_path / "r.jsonl", {}, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_turns_in_a_column_of_text_are_read(database, tmp_path):
    turns = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    made = query(f"SELECT '{turns}' AS messages", f"sqlite:///{database}", tmp_path / "r.jsonl").made
    assert made.formats == {"r.jsonl": "messages"}
