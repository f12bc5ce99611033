"""`compiler-rl select`: the chunks for a context, `evaluate select`, and `calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from baselines.chunk_selection import HEURISTICS
from compiler_rl.cli.common import console, evaluate_commands, require_folder, require_positive
from compiler_rl.select import Selected, problem_of, select
from games.chunk_selection import picture, validator
from games.chunk_selection.chunk import (
    Chunk,
    embedding_of,
    printable,
    read_jsonl,
    to_json_text,
    write_jsonl,
)
from games.chunk_selection.solution import Selection
from games.chunk_selection.value import EvidenceModel, load_model, to_json
from games.files import replace_file
from hlo_frontend.errors import InputError

SCHEMA = "compiler-rl/selection/1"

SetPath = Annotated[
    Path,
    typer.Argument(
        help="BEIR folder, Chroma chunking folder, or HotpotQA, 2WikiMultihopQA or MuSiQue file."
    ),
]
Queries = Annotated[int | None, typer.Option(help="Only so many of the questions.")]
Dense = Annotated[
    bool, typer.Option(help="Sentence embeddings beside BM25, where the extra rag is there.")
]
Value = Annotated[
    Path | None,
    typer.Option(help="A value by `compiler-rl calibrate`; the package's if not given."),
]


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="select")(select_chunks)
    app.command(name="calibrate")(calibrate)
    evaluate_commands.command(name="select")(evaluate_select)


def select_chunks(
    query: Annotated[str, typer.Option(help="The question.")],
    chunks: Annotated[
        Path,
        typer.Option(
            help="JSON lines with id and text, optionally score, embedding, n_tokens, title."
        ),
    ],
    budget: Annotated[int, typer.Option(help="Tokens for the chosen chunks together.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the chosen chunks in order (JSON lines).")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the whole report (JSON).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write value against tokens (.svg or .png).")
    ] = None,
    query_embedding: Annotated[
        Path | None, typer.Option(help="JSON list: the query by the chunks' embedding model.")
    ] = None,
    cost_weight: Annotated[
        str,
        typer.Option(
            help="Price of the whole budget; above 0 it may stay unused; `auto`: by the question."
        ),
    ] = "0",
    position_weights: Annotated[
        str | None,
        typer.Option(help="How well each position is read, as in 1,0.5,0.8; falling if not given."),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds for more search; milliseconds if not given.")
    ] = None,
    value: Value = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
) -> None:
    """Chooses and orders the chunks that answer a question within a token budget."""
    if time_limit is not None:
        require_positive(time_limit, "--time-limit")
    for path, option in ((out, "--out"), (json_out, "--json"), (plot, "--plot")):
        require_folder(path, option)
    if plot is not None and plot.suffix not in picture.PLOTS:
        raise InputError(f"--plot {plot}: expected a name ending in {', '.join(picture.PLOTS)}")
    weights = None if position_weights is None else _numbers(position_weights)
    asked = None if query_embedding is None else _embedding(query_embedding)
    model = _model(value)
    given = read_jsonl(chunks)
    with console.status("selecting"):
        found = select(
            query,
            given,
            budget,
            query_embedding=asked,
            cost_weight=_price(cost_weight),
            position_weights=weights,
            model=model,
            seed=seed,
            time_limit=time_limit,
        )
    problem = problem_of(
        query,
        given,
        budget,
        query_embedding=asked,
        cost_weight=found.trace.cost_weight,
        model=model,
        notes=[],
    )
    rows = _rows(found)
    faults = validator.validate_rows(problem, rows, found.trace.loss)
    if out is not None:
        replace_file(out, write_jsonl(rows))
    if json_out is not None:
        report = {
            "schema": SCHEMA,
            "query": query,
            **found.trace.to_json(),
            "validated": not faults,
        }
        replace_file(json_out, f"{to_json_text(report, indent=2)}\n".encode())
    if plot is not None:
        places = {chunk.id: place for place, chunk in enumerate(problem.chunks)}
        selection = Selection(tuple(places[chunk.id] for chunk in found.chunks))
        others = {
            name: HEURISTICS[name](problem).solution for name in ("hybrid_fill", "mmr", "dpp")
        }
        picture.draw(problem, selection, plot, others=others)
    _print(found)
    if faults:
        raise RuntimeError(f"the selection is not valid: {faults[0]}")


def _price(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--cost-weight {text}: expected a number, or auto") from None


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--position-weights {text}: expected numbers such as 1,0.5,0.8") from None


def _model(path: Path | None) -> EvidenceModel | None:
    return None if path is None else load_model(path)


def _embedding(path: Path) -> Any:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    return embedding_of(data, str(path))


def _rows(found: Selected) -> list[dict[str, Any]]:
    rows = []
    for place, (chunk, reason) in enumerate(zip(found.chunks, found.trace.taken, strict=True)):
        rows.append(
            {
                "position": place,
                "text": chunk.text,
                **reason.to_json(),
                **_given(chunk),
            }
        )
    return rows


def _given(chunk: Chunk) -> dict[str, Any]:
    """What the user's line had beside id, text and tokens; an embedding need not come back."""
    given: dict[str, Any] = {}
    if chunk.score is not None:
        given["score"] = chunk.score
    if chunk.title:
        given["title"] = chunk.title
    if chunk.metadata:
        given["metadata"] = dict(chunk.metadata)
    return given


def _print(found: Selected) -> None:
    trace = found.trace
    table = Table(box=None, pad_edge=False)
    for column in ("", "id", "tokens", "gain", "why"):
        table.add_column(column, justify="right" if column in ("tokens", "gain") else "left")
    for place, reason in enumerate(trace.taken, 1):
        row = (str(place), reason.id, str(reason.n_tokens), f"{reason.gain:.3f}", reason.why)
        table.add_row(*map(_plain, row))
    for reason in trace.nearly_taken:
        row = ("-", reason.id, str(reason.n_tokens), f"{reason.gain:.3f}", reason.why)
        table.add_row(*map(_plain, row), style="dim")
    console.print(table)
    console.print(
        f"{trace.used} of {trace.budget} tokens, {trace.unused} unused; expected recall"
        f" {trace.recall:.2f}, all of the evidence with probability {trace.all_found:.2f}"
        f" ({trace.method}, {trace.seconds * 1e3:.0f} ms).",
        highlight=False,
        soft_wrap=True,
    )
    for note in trace.notes:
        console.print(_plain(note), highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    """As it is: no markup of rich."""
    return printable(text).replace("[", "\\[")


def evaluate_select(
    path: SetPath,
    budgets: Annotated[str, typer.Option(help="Tokens, as in 256,512,1024.")] = "256,512,1024",
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write every figure (JSON).")
    ] = None,
    queries: Queries = None,
    dense: Dense = True,
    value: Value = None,
    seed: Annotated[int, typer.Option(help="Which questions, and seed of the search.")] = 0,
) -> None:
    """Compares the methods on a question set: recall, tokens, evaluations, milliseconds."""
    from experiments.chunk_evaluation import (  # noqa: PLC0415 (retrieval takes seconds to load)
        METHODS,
        evaluate_set,
    )

    require_folder(json_out, "--json")
    if queries is not None:
        require_positive(queries, "--queries")
    model = _model(value)
    sizes = []
    for part in budgets.split(","):
        if not part.strip().isdecimal() or int(part) <= 0:
            raise InputError(f"--budgets {budgets}: expected token counts such as 256,512")
        sizes.append(int(part))
    with console.status(f"evaluating {path.name}"):
        report = evaluate_set(path, sizes, queries=queries, dense=dense, seed=seed, model=model)
    if json_out is not None:
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
        replace_file(json_out, f"{text}\n".encode())
    for size in sizes:
        table = Table(box=None, pad_edge=False, title=f"{size} tokens", title_justify="left")
        columns = ("method", "recall", "± se", "all", "F1", "nDCG", "tokens", "evaluations", "ms")
        for column in columns:
            table.add_column(column, justify="left" if column == "method" else "right")
        for name in METHODS:
            row = report["budgets"][str(size)][name]
            table.add_row(
                name,
                *(f"{row[key]:.3f}" for key in ("recall", "recall_se", "all_gold")),
                *(f"{row[key]:.3f}" for key in ("token_f1", "ndcg")),
                *(f"{row[key]:,.0f}" for key in ("tokens", "evaluations")),
                f"{row['ms']:.1f}",
            )
        console.print(table)
    console.print(
        f"{report['questions']} questions, {report['candidates']:.0f} candidates each;"
        f" in the pool is {report['pool_recall']:.3f} of the evidence.",
        highlight=False,
    )


def calibrate(
    path: SetPath,
    out: Annotated[Path, typer.Option(help="Write the value (JSON), for `--value` of `select`.")],
    budget: Annotated[int, typer.Option(help="Tokens of your contexts.")] = 512,
    queries: Queries = None,
    dense: Dense = True,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Fits how sure `select` is of its choice to questions whose evidence you know."""
    from experiments.chunk_calibration import (  # noqa: PLC0415 (retrieval takes seconds to load)
        calibrate_set,
    )

    require_folder(out, "--out")
    require_positive(budget, "--budget")
    if queries is not None:
        require_positive(queries, "--queries")
    with console.status(f"calibrating on {path.name}"):
        found = calibrate_set(path, budget, queries=queries, dense=dense, seed=seed)
    replace_file(out, f"{json.dumps(to_json(found.model))}\n".encode())
    table = Table(box=None, pad_edge=False)
    for column in ("", "all, expected", "true", "recall, expected", "true", "error", "by chance"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in (("before", found.before), ("after, cross-fitted", found.after)):
        figures = (row.chance, row.there, row.expected, row.recall, row.error, row.by_chance)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    console.print(
        f"{found.questions} questions; {printable(str(out))} is of all of them.",
        highlight=False,
        soft_wrap=True,
    )
