// The page's data, and what reads it. Names come from users: they go to the page as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const PLANS = DATA.plans;
const METRICS = {
  time: { title: "predicted time", word: (value) => ms(value), log: false },
  memory: { title: "memory", word: (value) => bytes(value), log: true },
  sent: { title: "bytes sent", word: (value) => bytes(value), log: true },
};
const AT = { ranks: 0, time: 1, memory: 2, sent: 3, weights: 4 }; // places in a class of cells

function bytes(count) {
  const size = Math.abs(count);
  for (const [unit, power] of [["B", 0], ["kB", 3], ["MB", 6], ["GB", 9]])
    if (size < 999.5 * 10 ** power) return (power ? Number((count / 10 ** power).toPrecision(3)) : Math.round(count)) + " " + unit;
  return Number((count / 1e12).toPrecision(3)) + " TB";
}
const ms = (value) => value.toFixed(3) + " ms";
const whole = (value) => value.toLocaleString("en-US");
const left = (count) => (count >= 0 ? bytes(count) : bytes(-count) + " short");

// "0-7,12" -> [0, 1, ..., 7, 12]
function ranksIn(text) {
  const found = [];
  for (const part of text ? text.split(",") : []) {
    const [first, last] = part.split("-").map(Number);
    for (let rank = first; rank <= (last ?? first); rank++) found.push(rank);
  }
  return found;
}

for (const plan of PLANS) {
  plan.index = new Map(plan.tables.name.map((name, index) => [name, index]));
  // All cells of a class are equal; the first class has the ranks that no other one has.
  for (const classes of plan.tables.cells) for (const one of classes.slice(1)) one[AT.ranks] = ranksIn(one[AT.ranks]);
}

// What a rank has of a table: the class of its cell.
function cellOf(plan, table, rank) {
  const classes = plan.tables.cells[table];
  for (let number = 1; number < classes.length; number++) {
    const ranks = classes[number][AT.ranks];
    let low = 0, high = ranks.length;
    while (low < high) ranks[(low + high) >> 1] < rank ? (low = ((low + high) >> 1) + 1) : (high = (low + high) >> 1);
    if (ranks[low] === rank) return classes[number];
  }
  return classes[0];
}

function rowOf(plan, table, metric) {
  const [rest, ...others] = plan.tables.cells[table];
  const row = new Float64Array(plan.ranks).fill(rest[AT[metric]]);
  for (const one of others) for (const rank of one[AT.ranks]) row[rank] = one[AT[metric]];
  return row;
}

// A row of the list: a table by its place in each plan, -1 where the plan has none of that name.
const ENTRIES = [...new Set(PLANS.flatMap((plan) => plan.tables.name))].map((name) => ({
  name,
  at: PLANS.map((plan) => plan.index.get(name) ?? -1),
  moved: DATA.changes?.[name]?.moved ?? 0,
  what: DATA.changes?.[name]?.what ?? "",
}));

const get = (entry, number, field) => (entry.at[number] < 0 ? null : PLANS[number].tables[field][entry.at[number]]);
const size = (entry, number) => (entry.at[number] < 0 ? null : get(entry, number, "weights") + get(entry, number, "state"));
