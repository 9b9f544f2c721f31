"use strict";
// Names come from users: they go to the page as text, never as markup.

// An element with properties and children; strings become text.
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties))
    if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Gives each header cell a button: a click sorts by its column, a second one turns the order round.
function sortable(cells, sort, downFirst) {
  const state = { column: null, down: true };
  function by(index, down) {
    Object.assign(state, { column: index, down });
    cells.forEach((cell, at) => (at === index ? cell.setAttribute("aria-sort", down ? "descending" : "ascending") : cell.removeAttribute("aria-sort")));
    sort(index, down);
  }
  cells.forEach((cell, index) => {
    const button = el("button", { className: "plain", type: "button" }, ...cell.childNodes);
    button.addEventListener("click", () => by(index, state.column === index ? !state.down : downFirst(index)));
    cell.replaceChildren(button);
  });
  return by;
}

// Values in order, those that are missing last.
function compared(a, b, down) {
  const gone = (value) => value === null || value === undefined || value === "";
  if (gone(a) || gone(b)) return gone(a) - gone(b);
  const order = typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b;
  return down ? -order : order;
}

const FEW = 7; // rows that need no filter
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
  const numeric = (index) => rows.some((row) => row.cells[index].dataset.v !== undefined);
  const value = (cell, number) => (number ? (cell.dataset.v === undefined ? null : Number(cell.dataset.v)) : cell.textContent);
  const sort = (index, down) => {
    const number = numeric(index);
    rows.sort((a, b) => compared(value(a.cells[index], number), value(b.cells[index], number), down));
    body.append(...rows);
  };
  sortable([...table.tHead.rows[0].cells], sort, numeric);
  if (rows.length <= FEW) continue;
  const find = el("input", { type: "search", autocomplete: "off" }), found = el("span", { className: "faint", role: "status" });
  box.prepend(el("div", { className: "bar" }, el("label", {}, "Filter rows", find), found));
  find.addEventListener("input", () => {
    const query = find.value.trim().toLowerCase();
    for (const row of rows) row.hidden = ![...row.cells].some((cell) => cell.textContent.toLowerCase().includes(query));
    found.textContent = query ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
  });
}

// A link shows the rows of another table that hold its text.
for (const link of document.querySelectorAll("a[data-table]"))
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const box = [...document.querySelectorAll(".table")].find((one) => one.dataset.name === link.dataset.table), find = box?.querySelector("input");
    if (find) (find.value = link.textContent), find.dispatchEvent(new Event("input"));
    box?.scrollIntoView({ block: "start" });
    (find ?? box?.querySelector(".scroll"))?.focus();
  });

// Series that are turned off, by name, in every chart of the page.
const OFF = new Set();
function showSeries() {
  for (const one of document.querySelectorAll("svg .s")) one.classList.toggle("off", OFF.has(one.dataset.name));
  for (const one of document.querySelectorAll("button.key")) one.setAttribute("aria-pressed", String(!OFF.has(one.dataset.name)));
}
for (const key of document.querySelectorAll(".legend .key")) {
  const button = el("button", { className: "key", type: "button", title: "Show or hide; Shift and click shows this one alone", "aria-pressed": "true" }, ...key.childNodes);
  button.dataset.name = key.dataset.name;
  key.replaceWith(button);
  button.addEventListener("click", (event) => {
    if (event.shiftKey) for (const one of button.parentElement.children) OFF.add(one.dataset.name);
    if (!OFF.delete(button.dataset.name)) OFF.add(button.dataset.name);
    showSeries();
  });
}

// What a chart shows under the mouse, or where arrow keys lead.
for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg"), marks = [...svg.querySelectorAll(".p")], said = el("output", {}, "");
  if (!marks.length) continue;
  svg.after(said);
  const title = svg.querySelector("title").textContent, says = svg.querySelector("desc").textContent;
  for (const [name, value] of [["role", "application"], ["aria-roledescription", "chart"], ["tabindex", "0"]]) svg.setAttribute(name, value);
  svg.setAttribute("aria-label", `${title}. ${says} Arrow keys walk through the values.`);
  const visible = () => marks.filter((mark) => !mark.closest(".off"));
  let current = null;
  function point(mark, aloud) {
    current?.classList.remove("on");
    current = mark;
    mark?.classList.add("on");
    const name = mark?.closest(".s")?.dataset.name, told = mark?.querySelector("title").textContent ?? "";
    said.setAttribute("aria-live", aloud ? "polite" : "off");
    said.textContent = mark ? (name ? `${name}: ${told}` : told) : "";
  }
  svg.addEventListener("mousemove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let near = event.target.closest(".p"), best = 30 ** 2;
    if (!near)
      for (const mark of visible().filter((one) => one.tagName === "circle")) {
        const far = (mark.cx.baseVal.value - at.x) ** 2 + (mark.cy.baseVal.value - at.y) ** 2;
        if (far < best) [near, best] = [mark, far];
      }
    point(near, false);
  });
  svg.addEventListener("keydown", (event) => {
    const all = visible(), place = all.indexOf(current), last = all.length - 1;
    const to = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: last }[event.key];
    if (to === undefined || !all.length) return;
    point(all[Math.min(Math.max(to, 0), last)], true);
    event.preventDefault();
  });
}
