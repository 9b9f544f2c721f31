// Sortable lists of tables and of ranks.
function grid(caption, columns, rows, opened) {
  // columns: [title, value of a row to sort by, text of a row (or null: it has none), class]; rows: filled by `show`.
  const body = el("tbody"), head = el("tr"), state = { rows };
  for (const [title, , , kind] of columns) head.append(el("th", { scope: "col", className: kind ?? "" }, title));
  const sort = sortable(
    [...head.children],
    (index, down) => {
      const value = columns[index][1];
      state.rows = [...state.rows].sort((a, b) => compared(value(a), value(b), down));
      list.changed();
    },
    (index) => typeof columns[index][1](rows[0] ?? {}) !== "string",
  );
  const list = {
    node: el("div", { className: "list", tabIndex: 0, role: "region", "aria-label": caption }, el("table", {}, el("caption", { className: "faint" }), el("thead", {}, head), body)),
    state,
    sort,
    changed: () => list.show(state.rows),
    show(some) {
      body.replaceChildren(
        ...some.map((row) => {
          const cells = columns.map(([, , text, kind], index) => {
            const said = text(row) ?? "-";
            if (index) return el("td", { className: kind ?? "" }, String(said));
            const button = el("button", { className: "plain", type: "button" }, String(said));
            button.addEventListener("click", () => opened(row, button));
            return el("td", {}, button);
          });
          return el("tr", { className: row.what ? "changed" : "" }, ...cells);
        }),
      );
      list.node.querySelector("caption").textContent = `${caption}: ${whole(some.length)}`;
    },
  };
  return list;
}

const SIDE = (number) => (PLANS.length > 1 ? ` ${"AB"[number]}` : "");

function tableColumns() {
  const each = (make) => PLANS.flatMap((_, number) => [make(number)]);
  const figure = (title, field, word) =>
    each((n) => [title + SIDE(n), (entry) => get(entry, n, field), (entry) => (entry.at[n] < 0 ? null : word(get(entry, n, field)))]);
  const named = (title, field) =>
    each((n) => [title + SIDE(n), (e) => (e.at[n] < 0 ? null : PLANS[n].words[get(e, n, field)]), (e) => (e.at[n] < 0 ? null : PLANS[n].words[get(e, n, field)]), "words"]);
  const first = (entry) => (entry.at[0] >= 0 ? 0 : 1);
  const columns = [
    ["table", (entry) => entry.name, (entry) => entry.name],
    ["rows", (entry) => get(entry, first(entry), "rows"), (entry) => whole(get(entry, first(entry), "rows"))],
    ["columns", (entry) => get(entry, first(entry), "columns"), (entry) => whole(get(entry, first(entry), "columns"))],
    ["with state", (entry) => size(entry, first(entry)), (entry) => bytes(size(entry, first(entry)))],
    ...named("sharding", "sharding"),
    ...named("kernel", "kernel"),
    ...figure("slowest", "time", ms),
    ...figure("memory in all", "memory", bytes),
    ...figure("sent", "sent", bytes),
  ];
  if (PLANS.length > 1) {
    const slower = (entry) => (entry.at.includes(-1) ? null : get(entry, 1, "time") - get(entry, 0, "time"));
    const signed = (value) => (value === null ? null : (value > 0 ? "+" : "") + ms(value));
    columns.splice(1, 0, ["to move", (entry) => entry.moved, (entry) => (entry.what ? `${bytes(entry.moved)}, ${entry.what}` : "")]);
    columns.splice(2, 0, ["slower in B", slower, (entry) => signed(slower(entry))]);
  } else columns.push(["ranks", (entry) => get(entry, 0, "held"), (entry) => get(entry, 0, "where"), "words"]);
  return columns;
}

function rankColumns(plan) {
  const of = plan.rank, figure = (title, field, word) => [title, (rank) => of[field][rank], (rank) => word(of[field][rank])];
  const columns = [
    ["rank", (rank) => rank, (rank) => whole(rank)],
    ["predicted", (rank) => of.time[rank], (rank) => ms(of.time[rank])],
    ["taken", (rank) => of.reserved[rank] + of.memory[rank], (rank) => bytes(of.reserved[rank] + of.memory[rank])],
    figure("free", "free", left),
    figure("weights", "weights", bytes),
    figure("state", "state", bytes),
    figure("sent", "sent", bytes),
    ["lookups", (rank) => of.share[rank], (rank) => (100 * of.share[rank]).toFixed(2) + "%"],
    figure("tables", "tables", whole),
  ];
  return plan.gpu ? [...columns.slice(0, 4), figure("in host", "host", bytes), ...columns.slice(4)] : columns;
}
