"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const PALETTE = ["#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7",
    "#9c6b4e"];
  const OTHER_COLOUR = "#9498a0";
  const PART_COLOURS = {
    "generated convolutions": "#4269d0", "kept convolutions": "#6cc5b0", norms: "#ff8ab7",
    "linear layers": "#efb118", "convolution biases": "#9c6b4e", other: "#9498a0",
    container: "#c3c6cc", gains: "#3ca951", puppeteer: "#a463f2",
  };
  const models = data.rows.map((values) =>
    Object.fromEntries(values.map((value, i) => [data.columns[i], value])));

  // Elements: el("td", { class: "x", onclick }, "text", child, ...); text is never read as HTML.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key === "style") node.style.cssText = value;
      else if (value !== null && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  function svg(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // Numbers as people read them.
  function scaled(value, units, step = 1000) {
    let unit = 0;
    while (value >= 999.95 && unit < units.length - 1) { value /= step; unit += 1; }
    const digits = unit === 0 ? 0 : value >= 10 ? 1 : 2;
    return value.toFixed(digits) + units[unit];
  }
  const bytes = (value) => value === null ? "–" : scaled(value, [" bytes", " kB", " MB", " GB"]);
  const count = (value) => value === null ? "–" : scaled(value, ["", " k", " M", " G"]);
  const numbers = (value) => value === null ? "–" : scaled(value, ["", " k", " M", " B"]);
  const integer = (value) => value.toLocaleString("en");
  function times(value) {
    if (value === null) return "–";
    return value >= 99.95 ? value.toFixed(0) : value >= 1.95 ? value.toFixed(1) : value.toFixed(2);
  }
  const { compare } = new Intl.Collator("en", { numeric: true });
  const plural = (n, word) => `${integer(n)} ${word}${n === 1 ? "" : "s"}`;

  // The families with most CNNs have a colour of their own.
  const coloured = new Map(data.families.slice(0, PALETTE.length).map((name, i) => [name, PALETTE[i]]));
  const colourOf = (model) => coloured.get(model.family) ?? OTHER_COLOUR;
  const OTHER = "\u0000other";

  let chosen = null;
  let metric = "ratio";
  let visible = models;
  let sort = { key: "params", descending: true };

  // ---- One model ---------------------------------------------------------------------------

  function sentence(model) {
    const size = `${bytes(model.original)} → ${bytes(model.stored)}`;
    const gain = model.ratio >= 1.005
      ? `${size}, ${times(model.ratio)} times smaller with ${data.setting}`
      : `${size}: nothing to gain with ${data.setting}`;
    if (model.maxRatio === null) return `${gain}.`;
    return times(model.maxRatio) === times(model.ratio) ? `${gain}, and no more is feasible.`
      : `${gain}, up to ${times(model.maxRatio)} times at the largest feasible ratio.`;
  }
  function bar(names, parts, total, longest) {
    const width = Math.max(100 * total / longest, 0.8);
    return el("div", { class: "bar", style: `width:${width}%` },
      ...names.filter((name) => parts[name]).map((name) => el("i", {
        style: `flex:${parts[name]} 0 0;background:${PART_COLOURS[name] ?? OTHER_COLOUR}`,
        title: `${name}: ${bytes(parts[name])}`,
      })));
  }
  function partNames(model) {
    const names = [...new Set([...Object.keys(model.before), ...Object.keys(model.after)])];
    names.sort((a, b) => Math.max(model.before[b] ?? 0, model.after[b] ?? 0)
      - Math.max(model.before[a] ?? 0, model.after[a] ?? 0));
    return names;
  }
  function partsTable(model) {
    const names = partNames(model);
    const cell = (parts, name) => el("td", {}, bytes(parts[name] ?? null));
    return el("table", { class: "parts" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Bytes by part"),
        el("th", { scope: "col" }, "original"), el("th", { scope: "col" }, "puppet"))),
      el("tbody", {}, ...names.map((name) => el("tr", {},
        el("th", { scope: "row" }, el("span", { class: "swatch",
          style: `background:${PART_COLOURS[name] ?? OTHER_COLOUR}` }), name),
        cell(model.before, name), cell(model.after, name)))),
      el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "file"),
        el("td", {}, bytes(model.original)), el("td", {}, bytes(model.stored)))));
  }
  function stays(model) {
    const kept = model.kept.map(([reason, n]) =>
      el("li", {}, `${plural(n, "convolution")}: ${reason}`));
    const rest = ["linear layers", "norms", "convolution biases", "other"]
      .filter((part) => model.after[part])
      .map((part) => `${part} (${bytes(model.after[part])})`);
    if (rest.length) kept.push(el("li", {}, `${rest.join(", ")}: only convolutions are generated`));
    return el("section", {}, el("h3", {}, "What stays as it is, and why"),
      kept.length ? el("ul", { class: "stays" }, ...kept) : el("p", { class: "stays" }, "Nothing."));
  }
  function generated(model) {
    if (model.sites === null) return "–";
    const all = model.kept.reduce((sum, [, n]) => sum + n, model.sites);
    return `${integer(model.sites)} of ${integer(all)}`;
  }
  function facts(model) {
    const list = el("dl", { class: "facts" });
    const add = (name, value) => list.append(el("dt", {}, name), el("dd", {}, value));
    if (model.params !== null) add("parameters", integer(model.params));
    if (model.convs !== null) add("convolutions generated", generated(model));
    if (model.macs !== null) {
      add(`multiply-adds, one ${model.size} px image`, count(model.macs));
    }
    if (model.generationMacs) {
      add("multiply-adds, generating all weights once", count(model.generationMacs));
    }
    if (model.generationMs !== null) add("time to generate once", `${model.generationMs} ms`);
    if (model.forwardMs !== null && model.forwardPuppetMs !== null) {
      add(`forward pass, ${plural(model.batch, "image")}, ${plural(model.threads, "thread")}: `
        + "original, puppet", `${model.forwardMs} ms, ${model.forwardPuppetMs} ms`);
    }
    return list;
  }
  const command = (model) =>
    el("pre", {}, `puppetize report ${model.name} ${data.flags}`.trim());

  function answer(model) {
    const name = el("h2", { class: "model-name" }, model.name,
      el("small", {}, `family ${model.family || "unknown"}`));
    const trouble = model.status === "passed" ? null : el("p", { class: "warn" },
      `${model.status === "failed" ? "Failed" : "Skipped"}: ${model.reason || "no reason given"}`);
    if (model.ratio === null) return [name, trouble, facts(model), command(model)];
    const names = partNames(model);
    const longest = Math.max(model.original, model.stored);
    return [name, ...(trouble ? [trouble] : []),
      el("div", {}, el("p", { class: "gain" }, times(model.ratio), el("small", {}, " times smaller")),
        el("p", { class: "sentence" }, sentence(model))),
      el("div", { class: "bars", "aria-hidden": "true" },
        el("span", {}, "original"), bar(names, model.before, model.original, longest),
        el("span", {}, "puppet"), bar(names, model.after, model.stored, longest)),
      partsTable(model), stays(model), facts(model),
      el("div", {}, el("h3", {}, "The same on your machine"), command(model)),
      el("p", { class: "note" }, "Structure only: accuracy was not measured, and needs fine-tuning."),
    ];
  }
  function choose(model, { reveal = false, remember = true } = {}) {
    if (chosen) chosen.row.removeAttribute("aria-current");
    chosen = model;
    model.row.setAttribute("aria-current", "true");
    byId("answer").replaceChildren(...answer(model));
    byId("spoken").textContent =
      `${model.name}: ${model.ratio === null ? model.status : sentence(model)}`;
    drawRings();
    const box = byId("table-box");
    const top = model.row.offsetTop - byId("head").offsetHeight;
    if (!model.row.hidden && (top < box.scrollTop
        || model.row.offsetTop + model.row.offsetHeight > box.scrollTop + box.clientHeight)) {
      box.scrollTop = top;
    }
    // A file opened in a frame may not change its address; the page works without.
    if (remember) {
      try { history.replaceState(null, "", `#${encodeURI(model.name)}`); } catch { /* no matter */ }
    }
    if (reveal && byId("answer").getBoundingClientRect().bottom < 60) {
      byId("answer").scrollIntoView({ block: "start" });
    }
  }

  // ---- Search ------------------------------------------------------------------------------

  const plain = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "");
  for (const model of models) {
    model.bare = plain(model.name.slice(model.name.indexOf("/") + 1));
    model.plain = plain(model.name);
  }
  function find(query) {
    const words = query.toLowerCase().split(/[\s/]+/).map(plain).filter(Boolean);
    const whole = plain(query);
    const rank = (model) => model.bare === whole || model.plain === whole ? 0
      : model.bare.startsWith(whole) ? 1 : model.bare.startsWith(words[0]) ? 2 : 3;
    return words.length === 0 ? [] : models
      .filter((model) => words.every((word) => model.plain.includes(word)))
      .map((model) => [rank(model), model.ratio === null ? 1 : 0, model.bare.length, model])
      .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]
        || a[3].name.localeCompare(b[3].name))
      .map((entry) => entry[3]);
  }
  const search = byId("search");
  const list = byId("matches");
  let found = [];
  let active = 0;
  function showMatches() {
    const all = find(search.value);
    found = all.slice(0, 7);
    active = 0;
    list.replaceChildren(...found.map((model, i) => el("li", {
      id: `match-${i}`, role: "option",
      onmousedown: (event) => { event.preventDefault(); active = i; pick(); },
    }, el("span", {}, model.name),
    el("span", {}, model.ratio === null ? model.status : `${times(model.ratio)} ×`))));
    const asked = plain(search.value) !== "";
    list.hidden = found.length === 0;
    search.setAttribute("aria-expanded", String(found.length > 0));
    byId("no-match").hidden = !asked || found.length > 0;
    byId("no-match").textContent = "No model of either zoo has this name. For a network of your own: "
      + "puppetize(model, example_inputs=…).report() in Python.";
    if (all.length > found.length) {
      list.append(el("li", { role: "presentation", class: "muted",
        onmousedown: (event) => { event.preventDefault(); narrow(search.value); } },
      el("span", {}, `… ${integer(all.length - found.length)} more: show all in the table`)));
    }
    mark();
  }
  function mark() {
    [...list.querySelectorAll("[role=option]")].forEach((item, i) =>
      item.setAttribute("aria-selected", String(i === active)));
    if (found.length) {
      search.setAttribute("aria-activedescendant", `match-${active}`);
      choose(found[active]);
    } else search.removeAttribute("aria-activedescendant");
  }
  function pick() {
    if (!found.length) return;
    choose(found[active]);
    search.value = found[active].name;
    close();
  }
  function close() {
    list.hidden = true;
    search.setAttribute("aria-expanded", "false");
    search.removeAttribute("aria-activedescendant");
  }
  function narrow(text) {
    byId("f-text").value = text;
    close();
    applyFilters();
    byId("models").scrollIntoView();
  }
  search.addEventListener("input", showMatches);
  search.addEventListener("blur", close);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden) showMatches();
      else if (found.length) {
        active = (active + (event.key === "ArrowDown" ? 1 : -1) + found.length) % found.length;
        mark();
      }
      event.preventDefault();
    } else if (event.key === "Enter") pick();
    else if (event.key === "Escape") close();
  });

  // ---- Table -------------------------------------------------------------------------------

  const COLUMNS = [
    { key: "name", label: "Model", text: true },
    { key: "family", label: "Family", text: true },
    { key: "params", label: "Parameters", show: (m) => numbers(m.params) },
    { key: "original", label: "Original", show: (m) => bytes(m.original) },
    { key: "stored", label: "Puppet", show: (m) => bytes(m.stored) },
    { key: "ratio", label: "Times smaller", show: (m) => times(m.ratio), strong: true },
    { key: "maxRatio", label: "At most", show: (m) => times(m.maxRatio) },
    { key: "sites", label: "Generated", show: generated },
    { key: "status", label: "Status", text: true },
  ];
  for (const model of models) {
    model.row = el("tr", { onclick: () => choose(model, { reveal: true }) },
      ...COLUMNS.map((column) => {
        const text = column.show ? column.show(model) : model[column.key] ?? "";
        const classes = [column.text ? "text" : "", column.strong ? "strong" : "",
          column.key === "status" ? `status-${model.status}` : ""].filter(Boolean).join(" ");
        const title = column.key === "status" && model.reason ? model.reason : null;
        return el("td", { class: classes || null, title, "data-key": column.key },
          column.key === "name" ? el("button", { type: "button", tabindex: "-1" }, text) : text);
      }));
  }
  byId("head").append(...COLUMNS.map((column) => el("th",
    { scope: "col", class: column.text ? "text" : null, "data-key": column.key },
    el("button", { type: "button", onclick: () => sortBy(column) }, column.label))));
  function sortBy(column) {
    const again = sort.key === column.key;
    sort = { key: column.key, descending: again ? !sort.descending : !column.text };
    order();
    byId("table-box").scrollTop = 0;
  }
  function order() {
    const sign = sort.descending ? -1 : 1;
    const missing = (value) => value === null || value === undefined;
    models.sort((a, b) => {
      const x = a[sort.key], y = b[sort.key];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || compare(a.name, b.name);
      return sign * (typeof x === "string" ? compare(x, y) : x - y) || compare(a.name, b.name);
    });
    byId("body").append(...models.map((model) => model.row));
    for (const head of byId("head").children) {
      if (head.dataset.key !== sort.key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
    }
    enter();
  }
  // One Tab stop for the whole table; arrow keys move inside.
  function enter() {
    byId("body").querySelector("button[tabindex='0']")?.setAttribute("tabindex", "-1");
    models.find((model) => !model.row.hidden)?.row.querySelector("button")
      .setAttribute("tabindex", "0");
  }
  byId("body").addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    let row = event.target.closest("tr")[step];
    while (row && row.hidden) row = row[step];
    if (!row) return;
    event.target.setAttribute("tabindex", "-1");
    const button = row.querySelector("button");
    button.setAttribute("tabindex", "0");
    button.focus();
    event.preventDefault();
  });

  // ---- Filters -----------------------------------------------------------------------------

  function options(select, label, counts) {
    select.append(el("option", { value: "" }, label), ...counts.map(([value, n, name]) =>
      el("option", { value }, `${name ?? value} (${n})`)));
  }
  function tally(key) {
    const counts = new Map();
    for (const model of models) counts.set(model[key], (counts.get(model[key]) ?? 0) + 1);
    return [...counts].sort((a, b) => compare(a[0], b[0]));
  }
  options(byId("f-zoo"), "all", tally("zoo"));
  const others = new Set(models.map((m) => m.family).filter((name) => !coloured.has(name))).size;
  options(byId("f-family"), "all", tally("family"));
  if (others) byId("f-family").append(el("option", { value: OTHER }, "all without a colour"));
  options(byId("f-status"), "any", tally("status"));

  const number = (id) => byId(id).value === "" ? null : Number(byId(id).value);
  function applyFilters() {
    const words = byId("f-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [zoo, family, kind, status] = ["f-zoo", "f-family", "f-kind", "f-status"]
      .map((id) => byId(id).value);
    const from = number("f-params-from"), to = number("f-params-to");
    const least = number("f-ratio-from"), most = number("f-ratio-to");
    metric = document.querySelector("input[name=metric]:checked").value;
    const between = (value, low, high, unit) => (low === null && high === null)
      || (value !== null && (low === null || value >= low * unit)
        && (high === null || value <= high * unit));
    for (const model of models) {
      const name = model.name.toLowerCase();
      model.row.hidden = !(words.every((word) => name.includes(word) || model.plain.includes(word))
        && (!zoo || model.zoo === zoo)
        && (!family || model.family === family
          || (family === OTHER && !coloured.has(model.family)))
        && (!kind || model.cnn === (kind === "cnn"))
        && (!status || model.status === status)
        && between(model.params, from, to, 1e6) && between(model[metric], least, most, 1));
    }
    visible = models.filter((model) => !model.row.hidden);
    const measured = visible.filter((model) => model.ratio !== null).map((m) => m.ratio)
      .sort((a, b) => a - b);
    const middle = measured.length
      ? `; median ${times((measured[(measured.length - 1) >> 1] + measured[measured.length >> 1]) / 2)} `
        + "times smaller" : "";
    byId("count").textContent =
      `${integer(visible.length)} of ${integer(models.length)} models${middle}`;
    for (const button of byId("legend").children) {
      button.setAttribute("aria-pressed", String(button.value === family));
    }
    enter();
    draw();
  }
  byId("filters").addEventListener("input", applyFilters);
  for (const select of byId("filters").querySelectorAll("select")) {
    select.addEventListener("change", applyFilters);
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(applyFilters));

  // ---- Scatter plot ------------------------------------------------------------------------

  const plot = byId("plot");
  const picture = byId("scatter");
  const tip = byId("tip");
  const rings = svg("g", {});
  let scale = null;
  let points = [];
  let hovered = null;

  for (const [family, colour] of [...coloured, ...(others ? [[OTHER, OTHER_COLOUR]] : [])]) {
    const name = family === OTHER ? `${others} others` : family;
    byId("legend").append(el("button", { type: "button", value: family, "aria-pressed": "false",
      onclick: () => {
        byId("f-family").value = byId("f-family").value === family ? "" : family;
        applyFilters();
      } }, el("span", { class: "swatch", style: `background:${colour}` }), name));
  }
  function ticks(low, high, steps) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) values.push(value);
      }
    }
    return values;
  }
  function draw() {
    const width = plot.clientWidth;
    const height = Math.round(Math.min(440, Math.max(280, width * 0.5)));
    const margin = { left: 44, right: 12, top: 10, bottom: 42 };
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    byId("plot-title").textContent = metric === "ratio"
      ? `Times smaller with ${data.setting}, against size`
      : "Times smaller at the largest feasible ratio, against size";
    const all = models.filter((m) => m[metric] !== null && m[metric] > 0 && m.params > 0);
    const low = (key) => all.reduce((least, m) => Math.min(least, m[key]), Infinity);
    const high = (key) => all.reduce((most, m) => Math.max(most, m[key]), 0);
    const nodes = [];
    points = [];
    scale = null;
    if (all.length) {
      const x0 = low("params") / 1.15, x1 = high("params") * 1.15;
      const y0 = Math.min(low(metric), 0.95) / 1.08, y1 = Math.max(high(metric), 2) * 1.12;
      const along = (value, a, b) => Math.log(value / a) / Math.log(b / a);
      const x = (value) => margin.left + along(value, x0, x1) * (width - margin.left - margin.right);
      const y = (value) => height - margin.bottom
        - along(value, y0, y1) * (height - margin.top - margin.bottom);
      scale = { x, y };
      const right = width - margin.right, bottom = height - margin.bottom;
      for (const value of ticks(x0, x1, width < 480 ? [1] : [1, 3])) {
        nodes.push(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: margin.top, y2: bottom }),
          svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" },
            numbers(value).replace(/\.0+(?=\D|$)/, "")));
      }
      for (const value of ticks(y0, y1, [1, 2, 5])) {
        nodes.push(svg("line", { class: value === 1 ? "one" : "grid", x1: margin.left, x2: right,
          y1: y(value), y2: y(value) }), svg("text", { x: margin.left - 8, y: y(value) + 4,
          "text-anchor": "end" }, `${value >= 1 ? Math.round(value) : value.toFixed(1)}×`));
      }
      nodes.push(svg("text", { x: right, y: bottom + 36, "text-anchor": "end" }, "parameters →"));
      const shown = [], grey = [];
      for (const model of all) {
        const at = { model, x: x(model.params), y: y(model[metric]) };
        const out = model.row.hidden;
        const attributes = { cx: at.x.toFixed(1), cy: at.y.toFixed(1), r: out ? 2.5 : 4 };
        if (out) attributes.class = "out";
        else { attributes.fill = colourOf(model); points.push(at); }
        (out ? nodes : coloured.has(model.family) ? shown : grey).push(svg("circle", attributes));
      }
      nodes.push(...grey, ...shown);
      points.sort((a, b) => a.x - b.x || a.y - b.y);
    } else {
      nodes.push(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" },
        "No model has this figure."));
    }
    picture.replaceChildren(...nodes, rings);
    hover(null);
  }
  function drawRings() {
    const nodes = [];
    if (scale && chosen && chosen[metric] > 0 && chosen.params > 0) {
      const cx = scale.x(chosen.params), cy = scale.y(chosen[metric]);
      const leftward = cx > plot.clientWidth * 0.6;
      nodes.push(svg("circle", { class: "ring chosen", cx, cy, r: 7 }),
        svg("text", { class: "chosen-name", x: cx + (leftward ? -12 : 12), y: cy + 4,
          "text-anchor": leftward ? "end" : "start" }, chosen.name.slice(chosen.name.indexOf("/") + 1)));
    }
    if (hovered) nodes.push(svg("circle", { class: "ring", cx: hovered.x, cy: hovered.y, r: 6 }));
    rings.replaceChildren(...nodes);
  }
  function hover(point) {
    hovered = point;
    tip.hidden = point === null;
    if (point) {
      const { model } = point;
      tip.replaceChildren(el("strong", {}, model.name),
        el("span", {}, el("span", { class: "swatch", style: `background:${colourOf(model)}` }),
          `${model.family || "no family"}, ${numbers(model.params)} parameters`), el("br"),
        `${bytes(model.original)} → ${bytes(model.stored)}`, el("br"),
        `${times(model.ratio)} times smaller`
          + (model.maxRatio === null ? "" : `, at most ${times(model.maxRatio)}`));
      const left = point.x + 14 + tip.offsetWidth > plot.clientWidth
        ? point.x - 14 - tip.offsetWidth : point.x + 14;
      tip.style.left = `${Math.max(0, left)}px`;
      tip.style.top = `${Math.max(0, point.y - tip.offsetHeight / 2)}px`;
    }
    drawRings();
  }
  function nearest(event) {
    const box = plot.getBoundingClientRect();
    const px = event.clientX - box.left, py = event.clientY - box.top;
    let best = null, least = 30 ** 2;
    for (const point of points) {
      const distance = (point.x - px) ** 2 + (point.y - py) ** 2;
      if (distance < least) { best = point; least = distance; }
    }
    return best;
  }
  plot.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    if (point !== hovered) hover(point);
  });
  plot.addEventListener("pointerleave", () => hover(null));
  plot.addEventListener("blur", () => hover(null));
  plot.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) { hover(point); choose(point.model); }
  });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && points.length) {
      const from = points.findIndex((point) => point.model === (hovered?.model ?? chosen));
      hover(points[Math.min(points.length - 1, Math.max(0, from + step))]);
      event.preventDefault();
    } else if (event.key === "Enter" && hovered) choose(hovered.model);
    else if (event.key === "Escape") hover(null);
  });

  // ---- Text around, and start --------------------------------------------------------------

  byId("lead").textContent = data.lead;
  byId("command").textContent = data.command;
  byId("versions").textContent = data.versions;
  byId("with").textContent = data.setting;
  byId("setting").textContent = data.setting;
  const left = models.filter((model) => model.status !== "passed");
  const reasons = new Map();
  for (const model of left) {
    const key = `${model.status}: ${model.general}`;
    reasons.set(key, [...(reasons.get(key) ?? []), model.name]);
  }
  byId("uncovered-list").append(el("p", { class: "muted" }, left.length === 0
    ? `Each of the ${integer(models.length)} models was puppetized.`
    : `${integer(left.length)} of ${plural(models.length, "model")} were not puppetized:`),
  ...[...reasons].sort((a, b) => b[1].length - a[1].length || compare(a[0], b[0]))
    .map(([reason, names]) => el("details", {},
      el("summary", {}, `${integer(names.length)} ${reason}`),
      el("p", {}, names.sort(compare).join(", ")))));

  order();
  applyFilters();
  let drawnWidth = plot.clientWidth;
  new ResizeObserver(() => {
    if (plot.clientWidth !== drawnWidth) { drawnWidth = plot.clientWidth; draw(); }
  }).observe(plot);
  const linked = () => {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch { /* not written by this page */ }
    return models.find((model) => model.name === name);
  };
  window.addEventListener("hashchange", () => { if (linked()) choose(linked()); });
  const first = linked() ?? models.find((m) => m.bare === "resnet50" && m.ratio !== null)
    ?? models.find((m) => m.ratio !== null) ?? models[0];
  if (first) choose(first, { remember: false });
})();
