"""Public click logs that docs/science.md measures on, each as a CSV file with its schema. The data are their makers', for research.

MovieLens-100k, out of a package that ships it: a rating of 4 or 5 is a click; 943 users, 1,682 films, 100,000 rows.

    pip download --no-deps recbole
    python tools/public_logs.py ml100k recbole-*.whl --output ml100k
    dmoe preprocess log --schema ml100k/schema.yaml --input ml100k/log.csv --output data/ml100k --min-count 1 --split 0.7,0.1,0.2

`--split-by time` asks a harder question: most users of its test rows are new, since a user rates for a day or so.

Frappe, out of the repository that ships it: which app was used in which context, 10 fields, two negatives a click.

    git clone https://github.com/hexiangnan/neural_factorization_machine
    python tools/public_logs.py frappe neural_factorization_machine/data/frappe --output frappe
    dmoe preprocess log --schema frappe/schema.yaml --input frappe/log.csv --output data/frappe --min-count 1 \\
      --split-by day --validation-days 1 --test-days 1

Nine tenths of Frappe's validation file, drawn with seed 0, are to train, the other tenth to validate, its test file to test; the training
file is not read. Days stand for the splits.
"""

import argparse
import csv
import io
import random
import sys
import tarfile
import zipfile
from pathlib import Path

ML100K_FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
ML100K_COLUMNS = ["click", "time", "user", "item", "title", "year", "genres", "age", "gender", "occupation", "zip"]
CLICK = 4.0
"""The lowest rating that is a click."""
ML100K_SCHEMA = """\
format: csv
label: click
time: {column: time, format: unix}
group: user
dense:
  - {name: age, transform: standardise}
categorical:
  - user
  - item
  - title
  - year
  - {name: genres, separator: "|", pooling: mean}
  - {name: age_bucket, column: age, bucket: {edges: [18, 25, 35, 45, 50, 56]}}
  - gender
  - occupation
  - zip
  - {name: hour, part: hour}
  - {name: weekday, part: weekday}
"""
FRAPPE_FIELDS = ["user", "item", "daytime", "weekday", "is_weekend", "homework", "cost", "weather", "country", "city"]
FRAPPE_SCHEMA = f"""\
format: csv
label: click
time: {{column: day, format: "%Y-%m-%d"}}
categorical: [{", ".join(FRAPPE_FIELDS)}]
"""
DAYS = {"train": "2000-01-01", "validation": "2000-01-02", "test": "2000-01-03"}
HELD = 0.1
"""Share of the validation file's rows that validate."""


def tables(source: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each file by its ending, as column -> text; of a wheel, an sdist, or a folder.

    Raises:
        FileNotFoundError: one of the files is not there.
    """
    found: dict[str, str] = {}
    if Path(source).is_dir():
        found = {path.name: path.read_text() for path in Path(source).rglob("ml-100k.*")}
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            found = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if Path(name).name in ML100K_FILES}
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                if Path(member.name).name in ML100K_FILES and (file := archive.extractfile(member)) is not None:
                    found[Path(member.name).name] = file.read().decode()
    if missing := [name for name in ML100K_FILES if name not in found]:
        raise FileNotFoundError(f"{source}: no {missing[0]} in it")
    return {name.rpartition(".")[2]: _rows(found[name]) for name in ML100K_FILES}


def _rows(text: str) -> list[dict[str, str]]:
    # The header says `user_id:token`; no field is quoted, and titles hold quotes.
    reader = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [name.partition(":")[0] for name in next(reader)]
    return [dict(zip(names, row, strict=True)) for row in reader if row]


def ml100k(source: str) -> list[list[str]]:
    """The log's rows in the order of time (of equal times, in the file's), as `ML100K_COLUMNS` says."""
    found = tables(source)
    users = {row["user_id"]: row for row in found["user"]}
    items = {row["item_id"]: row for row in found["item"]}
    rows = []
    for row in sorted(found["inter"], key=lambda one: float(one["timestamp"])):
        user, item = users[row["user_id"]], items[row["item_id"]]
        told = [str(int(float(row["rating"]) >= CLICK)), str(int(float(row["timestamp"]))), row["user_id"], row["item_id"]]
        told += [item["movie_title"], item["release_year"], "|".join(item["class"].split())]
        rows.append([*told, user["age"], user["gender"], user["occupation"], user["zip_code"]])
    return rows


def rows_of(path: Path) -> list[list[str]]:
    """The rows of a libFM file: the label, 1 or 0, and the id of each field's value.

    Raises:
        ValueError: a row has another number of fields; names it.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        label, *ids = line.split()
        if len(ids) != len(FRAPPE_FIELDS):
            raise ValueError(f"{path}:{number}: {len(ids)} fields, expected {len(FRAPPE_FIELDS)}")
        rows.append([str(int(float(label) > 0)), *(one.partition(":")[0] for one in ids)])
    return rows


def frappe(folder: str) -> list[list[str]]:
    """The log's rows, the day first."""
    draw = random.Random(0)
    known = rows_of(Path(folder, "frappe.validation.libfm"))
    held = set(draw.sample(range(len(known)), round(HELD * len(known))))
    log = [[DAYS["validation" if number in held else "train"], *row] for number, row in enumerate(known)]
    return [*log, *([DAYS["test"], *row] for row in rows_of(Path(folder, "frappe.test.libfm")))]


LOGS = {"ml100k": (ml100k, ML100K_COLUMNS, ML100K_SCHEMA), "frappe": (frappe, ["day", "click", *FRAPPE_FIELDS], FRAPPE_SCHEMA)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("source", help="of ml100k: recbole's wheel or sdist, or a folder with its files; of frappe: the folder")
    parser.add_argument("--output", required=True, help="folder for log.csv and schema.yaml")
    arguments = parser.parse_args()
    made, columns, schema = LOGS[arguments.log]
    try:
        rows = made(arguments.source)
        folder = Path(arguments.output)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log.csv", "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        (folder / "schema.yaml").write_text(schema)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"tools/public_logs.py: {error}", file=sys.stderr)
        return 2
    clicks = sum(row[columns.index("click")] == "1" for row in rows)
    print(f"{folder}/log.csv: {len(rows):,} rows, {clicks / len(rows):.1%} clicks; {folder}/schema.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
