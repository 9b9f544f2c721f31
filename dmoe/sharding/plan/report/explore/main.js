// What is shown, and the panel of one table or rank.
const panel = document.getElementById("panel"), heading = panel.querySelector("h2"), inside = panel.querySelector("div");
const find = document.getElementById("find"), metric = document.getElementById("metric");
let opener = null;

function facts(pairs) {
  return el("dl", {}, ...pairs.filter(([, value]) => value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function shown(title, parts, hash, from) {
  if (from) opener = from;
  heading.textContent = title;
  inside.replaceChildren(...parts);
  panel.hidden = false;
  panel.scrollTop = 0;
  heading.focus();
  history.replaceState(null, "", hash);
  for (const row of document.querySelectorAll("tr[aria-current]")) row.removeAttribute("aria-current");
  from?.closest?.("tr")?.setAttribute("aria-current", "true");
}

function close() {
  panel.hidden = true;
  history.replaceState(null, "", "#");
  opener?.focus?.({ preventScroll: false });
}

function triedTable(plan, rows) {
  const kept = rows.find((row) => row[5])?.[4] ?? null;
  const head = ["tried", "shards", "slowest shard", "memory in all", "the plan's critical rank", "slower"];
  const cells = rows.map(([what, shards, slowest, held, time, chosen]) => {
    const cost = time === null ? "does not fit" : ms(time);
    const more = time === null || kept === null || chosen ? "" : (time >= kept ? "+" : "") + (time - kept).toFixed(3);
    const texts = [plan.words[what] + (chosen ? " (chosen)" : ""), whole(shards), ms(slowest), bytes(held), cost, more];
    const row = el("tr", {}, ...texts.map((text, at) => el("td", { className: at === 4 && time === null ? "bad" : "" }, text)));
    if (chosen) row.className = "good";
    return row;
  });
  return el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...cells)));
}

function tableParts(plan, table) {
  const of = plan.tables, parts = [];
  parts.push(
    facts([
      ["size", `${whole(of.rows[table])} x ${of.columns[table]}`],
      ["sharding", `${plan.words[of.sharding[table]]}, kernel ${plan.words[of.kernel[table]]}${of.shards[table] > 1 ? `, ${whole(of.shards[table])} shards` : ""}`],
      ["weights, state", `${bytes(of.weights[table])}, ${bytes(of.state[table])}`],
      ["memory in all", `${bytes(of.memory[table])} over all ranks, with buffers`],
      ["slowest rank", `${ms(of.time[table])} of its step`],
      ["sent", `${bytes(of.sent[table])} a step, over all ranks`],
      ["ranks", of.where[table]],
      ["use", of.use[table]],
    ]),
  );
  const holders = ranksIn(of.at[table]);
  if (holders.length && holders.length <= 24) {
    const buttons = holders.map((rank) => {
      const button = el("button", { type: "button" }, `rank ${rank}`);
      button.addEventListener("click", () => openRank(rank));
      return button;
    });
    parts.push(el("div", { className: "few" }, ...buttons));
  }
  const tried = plan.tried[of.tried[table]];
  parts.push(el("h3", {}, "Why"));
  if (tried.length) parts.push(el("p", {}, plan.words[of.decided[table]]), triedTable(plan, tried));
  else parts.push(el("p", { className: "faint" }, "The plan keeps no alternatives: it was made or edited without them."));
  return parts;
}

function sides(make) {
  return PLANS.flatMap((plan, number) => {
    const made = make(plan, number);
    return PLANS.length > 1 ? [el("h3", {}, plan.label), ...made] : made;
  });
}

function openTable(name, from) {
  const entry = ENTRIES.find((one) => one.name === name);
  if (!entry) return;
  const parts = sides((plan, number) => (entry.at[number] < 0 ? [el("p", { className: "faint" }, "has no such table")] : tableParts(plan, entry.at[number])));
  if (entry.what) parts.unshift(el("p", {}, `Between the two: ${entry.what}; ${bytes(entry.moved)} go to other ranks.`));
  shown(name, parts, "#table=" + encodeURIComponent(name), from);
}

function rankParts(plan, rank) {
  if (rank >= plan.ranks) return [el("p", { className: "faint" }, "has no such rank")];
  const of = plan.rank, marks = [rank === plan.critical ? "critical" : "", rank === plan.fullest ? "fullest" : "", plan.without.includes(rank) ? "left out" : ""];
  const held = plan.tables.name.map((_, table) => [table, cellOf(plan, table, rank)]).filter(([, cell]) => cell[AT.memory] > 0);
  const list = grid(
    "tables held",
    [
      ["table", ([table]) => plan.tables.name[table], ([table]) => plan.tables.name[table]],
      ["predicted", ([, cell]) => cell[AT.time], ([, cell]) => ms(cell[AT.time])],
      ["memory", ([, cell]) => cell[AT.memory], ([, cell]) => bytes(cell[AT.memory])],
      ["weights", ([, cell]) => cell[AT.weights], ([, cell]) => bytes(cell[AT.weights])],
      ["sent", ([, cell]) => cell[AT.sent], ([, cell]) => bytes(cell[AT.sent])],
      ["sharding", ([table]) => plan.words[plan.tables.sharding[table]], ([table]) => plan.words[plan.tables.sharding[table]], "words"],
    ],
    held,
    ([table]) => openTable(plan.tables.name[table]),
  );
  list.sort(1, true);
  return [
    facts([
      ["is", marks.filter(Boolean).join(", ")],
      ["place", `node ${Math.floor(rank / plan.local)}, place ${rank % plan.local}`],
      ["predicted", `${ms(of.time[rank])} a step: ${plan.parts.map(([part, values]) => `${part} ${ms(values[rank])}`).join(", ")}`],
      ["memory", `${bytes(plan.capacity[rank])}: ${bytes(of.reserved[rank])} kept for all else, ${bytes(of.memory[rank])} of tables, ${left(of.free[rank])}${of.free[rank] >= 0 ? " free" : ""}`],
      ["host's memory", plan.gpu ? `${bytes(of.host[rank])} of tables` : ""],
      ["lookups, sent", `${(100 * of.share[rank]).toFixed(2)}% of all, ${bytes(of.sent[rank])} a step`],
    ]),
    list.node,
  ];
}

const openRank = (rank, from) => shown(`Rank ${rank}`, sides((plan) => rankParts(plan, rank)), `#rank=${rank}`, from);

// ---- the page ----
const heats = PLANS.map((_, number) => {
  const figure = el("figure");
  document.getElementById("map").append(figure);
  return new Heat(number, figure);
});
const paint = PLANS.flatMap((plan, number) => {
  const of = plan.rank, figures = [el("figure"), el("figure")];
  document.getElementById("bars").append(...figures);
  const buffers = of.memory.map((value, rank) => Math.max(value - of.weights[rank] - of.state[rank], 0));
  const weights = of.memory.map((value, rank) => Math.min(value, of.weights[rank] + of.state[rank]));
  const memory = [["kept for the rest", of.reserved], ["weights and state", weights], ["buffers", buffers]];
  return [bars(number, figures[0], "memory", memory, bytes, plan.capacity), bars(number, figures[1], "predicted time", plan.parts, ms, null)];
});
const tables = grid("Tables", tableColumns(), ENTRIES, (entry, button) => openTable(entry.name, button));
document.getElementById("tables").append(tables.node);
PLANS.forEach((plan, number) => {
  const list = grid(`Ranks${SIDE(number)}`, rankColumns(plan), Array.from({ length: plan.ranks }, (_, rank) => rank), openRank);
  list.changed();
  document.getElementById("ranks").append(list.node);
});

function draw() {
  const query = find.value.trim().toLowerCase();
  const found = tables.state.rows.filter((entry) => entry.name.toLowerCase().includes(query));
  tables.show(found);
  for (const heat of heats) heat.draw(found, metric.value);
  document.getElementById("found").textContent = query ? `${whole(found.length)} of ${whole(ENTRIES.length)} tables` : "";
}
function drawAll() {
  draw();
  for (const one of paint) one();
}
tables.changed = draw;
drawAll();
find.addEventListener("input", draw);
metric.addEventListener("change", draw);
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
panel.querySelector("button").addEventListener("click", close);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) close();
  if (event.key === "/" && document.activeElement !== find) find.focus(), event.preventDefault();
});
function follow() {
  const [, kind, value] = /^#(table|rank)=(.*)$/.exec(location.hash) ?? [];
  if (kind === "table") openTable(decodeURIComponent(value));
  if (kind === "rank" && /^\d+$/.test(value) && Number(value) < Math.max(...PLANS.map((plan) => plan.ranks))) openRank(Number(value));
}
addEventListener("hashchange", follow);
follow();
