#!/usr/bin/python3
"""One HTML report of the paper's figures and claims from the studies of a folder.

    tools/paper/report.py out/paper -o out/paper/report.html

Every folder `<figure>-<pair>` with a results.h5 of `deltapath run jobs/paper/<figure>.yaml` is taken,
whichever models it is of; what is read of a study is checked against its checksums. Needs
python3-h5py, python3-numpy, python3-xxhash and gnuplot. The report holds no time and no duration: the same results give the same
bytes. Exit codes: 0 done, 2 usage, 3 a study is damaged or there is none, 4 output cannot be written.
"""
import argparse
import hashlib
import html
import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).resolve().parents[1])]
import claims
import figures
import outputs
import results
import study as st

STYLE = """
:root{--ink:#1d2430;--soft:#5a6270;--line:#dfe3e8;--paper:#fff;--band:#f5f7f9}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1320px;padding:32px 28px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}
h1{font-size:28px;margin:0 0 4px}h2{font-size:20px;margin:44px 0 8px;padding-top:14px;
border-top:1px solid var(--line)}h3{font-size:16px;margin:22px 0 4px}
p.sub,figcaption{color:var(--soft)}figcaption{font-size:13px;margin-top:6px;max-width:580px}
.wrap{overflow-x:auto}.pair{display:flex;flex-wrap:wrap;gap:14px}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:5px 9px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}tbody tr:nth-child(even){background:var(--band)}
.v{display:inline-block;padding:1px 9px;border-radius:10px;color:#fff;font-size:12px;font-weight:600}
.holds{background:#1a7f5a}.fails{background:#c0392b}.undecided{background:#7b8490}
figure{margin:8px 0;padding:12px;background:#fff;border:1px solid var(--line);border-radius:8px;
break-inside:avoid;max-width:100%}figure svg{max-width:100%;height:auto;display:block}
small{color:var(--soft)}details{margin:6px 0}summary{cursor:pointer;color:var(--soft)}
pre{white-space:pre-wrap;font-size:12px;background:var(--band);padding:10px}
"""

TITLES = {name: title for name, title, _ in figures.FIGURES}
MAKERS = {name: maker for name, _, maker in figures.FIGURES}


def claim_tables(rows):
    """One for the paper's claims, one for ours."""
    text = ""
    for source, title in claims.SOURCES.items():
        mine = [row for row in rows if row.source == source]
        if mine:
            text += f"<h3>{title}</h3><p class='sub'>{summary(mine)}</p>{claim_table(mine)}"
    return text


def claim_table(rows):
    text = ("<div class='wrap'><table><thead><tr><th>figure</th><th>what the claim predicts</th>"
            "<th>models, data</th><th>what came out</th><th>here it</th></tr></thead><tbody>")
    for row in rows:
        cells = "\n".join(f"{a.verdict:9}  {a.mean:+.4g} [{a.low:+.4g}, {a.high:+.4g}]  {a.label}{marks(a)}" for a in row.answers)
        text += (f"<tr><td>{row.figure}</td><td>{html.escape(row.claim)}<br><small>"
                 f"{html.escape(row.rule)}</small></td><td>{html.escape(row.pair)}</td><td>"
                 f"{html.escape(row.outcome)}<details><summary>all cells</summary><pre>"
                 f"{html.escape(cells)}</pre></details></td>"
                 f"<td><span class='v {row.verdict}'>{row.verdict}</span></td></tr>")
    return text + "</tbody></table></div>"


def marks(cell):
    """What stands behind a cell that is not as the others."""
    return "".join(f", {words}" for words in (["of few"] if cell.few else []) + claims.of_one([cell])) + (
        f"\n{'':11}{cell.why}" if cell.why else "")


def study_section(study):
    """The plots and tables of one study."""
    text = f"<h3>{html.escape(study.pair)}</h3><div class='pair'>"
    for body, caption in figures.make(study, MAKERS[study.figure]):
        if body:
            text += f"<figure>{body}<figcaption>{html.escape(caption)}</figcaption></figure>"
    return text + "</div>"


def figure_sections(studies, sections):
    text = ""
    for name, title in TITLES.items():
        mine = [section for study, section in zip(studies, sections) if study.figure == name]
        if mine:
            text += f"<h2 id='{name}'>{html.escape(title)}</h2>" + "".join(mine)
    return text


def sources(studies):
    text = "<h2>Studies</h2>"
    for s in studies:
        inputs = s.provenance.get("inputs", {})
        text += (f"<details><summary>{html.escape(s.name)}: {html.escape(str(inputs.get('pre')))} to "
                 f"{html.escape(str(inputs.get('post')))}, {len(s.units)} units</summary><pre>"
                 f"{html.escape(s.provenance.get('program', ''))}\n"
                 f"{html.escape(json.dumps(inputs, indent=1))}\n{html.escape(s.job)}</pre></details>")
    return text


def claims_csv(rows):
    lines = ["source,figure,pair,claim,cell,mean,low,high,few,of_one,cell_verdict,verdict"]
    for row in rows:
        for a in row.answers:
            lines.append(",".join([row.source, row.figure, quoted(row.pair), quoted(row.claim), quoted(a.label),
                                   f"{a.mean!r},{a.low!r},{a.high!r},{int(a.few)},{a.once}", a.verdict, row.verdict]))
    return "\n".join(lines) + "\n"


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def counted(number, one, many):
    return f"{number} {one if number == 1 else many}"


def summary(rows):
    """How many claims came out how, in words."""
    return ", ".join(counted(sum(r.verdict == verdict for r in rows), one, many)
                     for verdict, one, many in (("holds", "holds", "hold"), ("fails", "fails", "fail"),
                                                ("undecided", "is undecided", "are undecided")))


def markdown(rows):
    """The table of doc/paper.md: each claim once, with what came out on each pair, the share of cells that hold, and how many
    are of one mask."""
    lines = ["| whose | figure | claim | came out |", "|---|---|---|---|"]
    for key in dict.fromkeys((r.source, r.figure, r.claim) for r in rows):
        mine = [r for r in rows if (r.source, r.figure, r.claim) == key]
        texts = []
        for r in mine:
            holds = sum(a.verdict == "holds" for a in r.answers)
            share = f" {holds}/{len(r.answers)}" if len(r.answers) > 1 else ""
            texts.append(f"{r.pair}: **{r.verdict}**{share}" + "".join(f", {words}" for words in claims.of_one(r.answers)))
        cells = [key[0], FIGURE_NAMES[key[1]], key[2].replace("|", "\\|"), "; ".join(texts)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


FIGURE_NAMES = {name: title.split(":")[0] for name, title in TITLES.items()}


TABLE = "claims.csv"
USAGE, INPUT, OUTPUT = 2, 3, 4


class Usage(SystemExit):
    """A command that cannot be followed: one line for the user."""


def vouches(table):
    """What the page says of the table next to it, which cannot carry a checksum itself."""
    return f"<!-- {TABLE} {hashlib.sha256(table).hexdigest()}\n"


def vouched(table, _):
    """Whether a table is as a page next to it says."""
    line = vouches(table.read_bytes()).encode()
    return any(line in page.read_bytes() and outputs.is_sealed(page, outputs.COMMENT)
               for page in table.parent.glob("*.html") if page.is_file())


def check(output, folder):
    """Both files, before anything is replaced."""
    table = output.with_name(TABLE)
    if outputs.is_same(output, table) or output.name == TABLE:
        raise Usage(f"{output}: is the name of the table that goes next to the page: give the page another name")
    studies = {file.parent for file in folder.glob(f"*/{results.NAME}")}
    outputs.check_place(output)
    outputs.check(output, studies, outputs.COMMENT)
    outputs.check(table, studies, sealed=vouched)
    return table


def write(output, folder, page, rows):
    table, cells = check(output, folder), claims_csv(rows).encode()
    body = (page + vouches(cells)).encode()
    if table.exists():
        table.unlink()  # the page vouches for the new one alone
    outputs.put(output, body + outputs.seal_of(body) + outputs.COMMENT)
    outputs.put(table, cells)


def page_of(studies, rows, sections):
    return (f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Figures and claims"
            f"</title><style>{STYLE}</style></head><body><h1>Figures and claims of "
            "arXiv:2410.13841</h1><p class='sub'>"
            f"{counted(len(studies), 'study', 'studies')}, {counted(len(rows), 'claim', 'claims')} on pairs "
            f"of models: {summary(rows)}.</p>"
            "<h2>Claims</h2><p>" + html.escape(" ".join(claims.__doc__.split())) + " A claim on a "
            "pair fails when one of its cells fails, holds when all hold, and is undecided "
            "otherwise; the row names the cell that decided. A claim whose edits are not in the job is "
            "left out. The rules are code: tools/paper/claims.py.</p>"
            + claim_tables(rows) + figure_sections(studies, sections) + sources(studies)
            + "</body></html>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path, help=f"holds <figure>-<pair>/{results.NAME}")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("-o", "--output", type=pathlib.Path, help="the page to write")
    to.add_argument("--table", action="store_true", help="print the claims as a table in Markdown, as in doc/paper.md")
    args = parser.parse_args()
    if args.output:
        check(args.output, args.folder)
    studies, skipped, broken = st.load(args.folder, list(TITLES))
    studies.sort(key=lambda s: (list(TITLES).index(s.figure), s.pair))
    read, rows, sections = [], [], []
    for study in studies:
        try:
            found, section = list(claims.rows_of(study)), study_section(study)
        except st.Unreadable as error:
            broken.append(str(error))
            continue
        read.append(study)
        rows += found
        sections.append(section)
    for line in skipped + broken:
        print(f"report.py: {line}", file=sys.stderr)
    if not read:
        print(f"report.py: {args.folder}: no finished study there: each needs a folder named "
              f"<figure>-<pair> with a {results.NAME}, <figure> being one of {', '.join(TITLES)}, as "
              "in fig4-qwen2-7b; tools/paper.sh makes those of the shipped pairs", file=sys.stderr)
        return INPUT
    if args.table:
        print(markdown(rows))
        return INPUT if broken else 0
    write(args.output, args.folder, page_of(read, rows, sections), rows)
    print(f"report: {args.output}: {counted(len(rows), 'claim', 'claims')}: {summary(rows)}; the cells "
          f"of each: {TABLE} next to it")
    return INPUT if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Usage, outputs.Refused) as refused:
        print(f"report.py: {refused}", file=sys.stderr)
        sys.exit(USAGE if isinstance(refused, Usage) else OUTPUT)
