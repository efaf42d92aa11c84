// Gallery of cells by kind beside their field. Python sends `data`; the board sends back events in a list, each with a
// number, and repeats them until `data.seen` says that they arrived, so that fast keys lose none.

const SVG = "http://www.w3.org/2000/svg";
const WAIT = 90; // ms in which further selections are joined into one event; the first is sent at once
const states = new WeakMap();

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".board");
  let state = states.get(root);
  if (!state) {
    state = { root, nodes: new Map(), events: [], number: data.seen, chosen: data.chosen, anchor: null, told: "" };
    states.set(root, state);
    listen(state);
  }
  state.send = (events) => setTriggerValue("events", events);
  state.events = state.events.filter((event) => event.number > data.seen);
  state.data = data;
  if (state.events.length) schedule(state, WAIT);
  else state.chosen = data.chosen;
  draw(state);
  return () => clearTimeout(state.timer);
}

function emit(state, event, soon) {
  const last = state.events[state.events.length - 1];
  if (event.type === "choose" && last && last.type === "choose" && !last.sent) state.events.pop();
  state.number = Math.max(state.number, state.data.seen) + 1;
  state.events.push({ ...event, number: state.number });
  const quiet = performance.now() - (state.sentAt || 0) > WAIT;
  schedule(state, soon || quiet ? 0 : WAIT);
}

function schedule(state, wait) {
  clearTimeout(state.timer);
  state.timer = setTimeout(() => {
    state.events.forEach((one) => { one.sent = true; });
    state.sentAt = performance.now();
    state.send(state.events.map(({ sent, ...one }) => one));
  }, wait);
}

// cells with the kinds that were given here and that the server does not know yet
function current(state) {
  const given = new Map();
  for (const event of state.events) {
    if (event.type === "give") event.cells.forEach((id) => given.set(id, event.kind));
  }
  return state.data.cells.map((cell) => given.has(cell.id) ? { ...cell, kind: given.get(cell.id), check: "" } : cell);
}

function grouped(state) {
  const groups = new Map();
  const cells = current(state);
  for (const cell of state.onlyReview ? cells.filter((one) => one.check) : cells) {
    if (!groups.has(cell.kind)) groups.set(cell.kind, []);
    groups.get(cell.kind).push(cell);
  }
  const order = state.data.kinds.map((kind) => kind.name);
  const place = (name) => (order.indexOf(name) < 0 ? order.length : order.indexOf(name));
  return [...groups].sort((a, b) => place(a[0]) - place(b[0])).map(([name, cells]) => ({
    kind: kindOf(state, name),
    cells: [...cells.filter((cell) => cell.check), ...cells.filter((cell) => !cell.check)],
  }));
}

const kindOf = (state, name) => state.data.kinds.find((kind) => kind.name === name)
  || { name, title: name || "no recognisable cell", short: "–", colour: "#7A7F87", key: "" };
const inOrder = (state) => grouped(state).flatMap((group) => group.cells.map((cell) => cell.id));

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(state) {
  drawKinds(state);
  drawGallery(state);
  drawField(state);
  state.root.querySelector(".status").textContent = state.told || state.data.told;
}

function drawKinds(state) {
  const bar = state.root.querySelector(".kinds");
  if (bar.childElementCount) return;
  for (const kind of state.data.kinds) {
    const button = element("button");
    if (kind.key) button.append(element("kbd", "", kind.key.toUpperCase()));
    button.append(kind.title);
    button.onclick = () => give(state, kind.name);
    droppable(state, button, kind.name);
    bar.append(button);
  }
}

function droppable(state, node, kind) {
  node.ondragover = (event) => { event.preventDefault(); node.classList.add("over"); };
  node.ondragleave = () => node.classList.remove("over");
  node.ondrop = (event) => { event.preventDefault(); node.classList.remove("over"); give(state, kind); };
}

function drawGallery(state) {
  const gallery = state.root.querySelector(".gallery");
  const had = gallery.scrollTop;
  const waiting = current(state).filter((cell) => cell.check).length;
  state.root.querySelector(".filter").hidden = !waiting && !state.onlyReview;
  state.root.querySelector(".filter span").textContent = `only the ${waiting} for review`;
  const parts = grouped(state).map(({ kind, cells }) => {
    const group = element("div", "group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `${kind.title}, ${cells.length}`);
    const heading = element("h4");
    heading.setAttribute("aria-hidden", "true"); // the group has its name; the button beside the cell approves too
    const swatch = element("span", "swatch");
    swatch.style.background = kind.colour;
    const open = cells.filter((cell) => !cell.decided).length;
    heading.append(swatch, `${kind.title} (${cells.length})`);
    if (open && kind.name) {
      const approve = element("button", "", "Approve all");
      approve.tabIndex = -1;
      approve.onclick = () => {
        state.told = `${open} approved as ${kind.title}.`;
        emit(state, { type: "approve", cells: cells.map((cell) => cell.id) }, true);
      };
      heading.append(approve);
    }
    const list = element("div", "cells");
    list.append(...cells.map((cell) => drawCell(state, cell)));
    group.append(heading, list);
    droppable(state, group, kind.name);
    return group;
  });
  gallery.replaceChildren(...parts);
  gallery.scrollTop = had;
  mark(state);
}

function drawCell(state, cell) {
  let node = state.nodes.get(cell.id);
  if (!node) {
    node = element("div", "cell");
    node.id = `cell-${cell.id.replace(/[^\w-]/g, "-")}`;
    node.dataset.id = cell.id;
    node.setAttribute("role", "option");
    node.draggable = true;
    node.append(element("div", "thumb"), element("div", "name"));
    state.nodes.set(cell.id, node);
  }
  const [thumb, name] = node.children;
  const sheet = state.data.sheets[cell.sheet];
  const image = `url("${sheet.url}")`;
  if (node.dataset.url !== sheet.url) { thumb.style.backgroundImage = image; node.dataset.url = sheet.url; }
  thumb.style.backgroundPosition = `-${72 * (cell.at % sheet.columns)}px -${72 * Math.floor(cell.at / sheet.columns)}px`;
  thumb.style.backgroundSize = `${72 * sheet.columns}px auto`;
  const kind = kindOf(state, cell.kind);
  const mark = cell.kind === cell.model ? (cell.decided ? "✓ " : "") : "✎ ";
  name.replaceChildren(element("b", "", `${cell.check ? "⚑ " : mark}${cell.number} ${kind.short}`));
  if (cell.kind !== cell.model) name.append(` ← ${kindOf(state, cell.model).short}`);
  else name.append(` ${cell.share}`);
  node.classList.toggle("check", Boolean(cell.check));
  const agreed = `${cell.share ? `, ${cell.share}` : ""}${cell.decided ? ", approved" : ""}`;
  const was = cell.kind !== cell.model ? `, the model says ${kindOf(state, cell.model).title}` : agreed;
  const label = `${cell.number ? `Cell ${cell.number} of ` : ""}${cell.file}: ${kind.title}${was}${cell.check ? `. Check: ${cell.check}` : ""}`;
  node.setAttribute("aria-label", label);
  node.title = label;
  return node;
}

function mark(state) {
  const chosen = new Set(state.chosen);
  for (const [id, node] of state.nodes) node.setAttribute("aria-selected", String(chosen.has(id)));
  const active = state.nodes.get(state.chosen[state.chosen.length - 1]);
  const gallery = state.root.querySelector(".gallery");
  if (active && active.isConnected) {
    gallery.setAttribute("aria-activedescendant", active.id);
    const top = active.offsetTop - gallery.offsetTop;
    if (top < gallery.scrollTop || top + active.offsetHeight > gallery.scrollTop + gallery.clientHeight) {
      gallery.scrollTop = top - gallery.clientHeight / 3;
    }
  } else gallery.removeAttribute("aria-activedescendant");
  state.root.querySelectorAll("svg g").forEach((box) => box.classList.toggle("chosen", chosen.has(box.dataset.id)));
}

// black or white, whichever has more contrast on a colour
function ink(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

function shape(tag, attributes, classes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (classes) made.setAttribute("class", classes);
  return made;
}

function drawField(state) {
  const { field } = state.data;
  const place = state.root.querySelector(".field");
  place.hidden = !field;
  state.root.querySelector(".split").classList.toggle("both", Boolean(field));
  if (!field) return;
  const image = place.querySelector("img");
  if (image.getAttribute("src") !== field.url) image.src = field.url;
  image.alt = field.alt;
  place.querySelector(".file").textContent = field.several ? `${field.file} (${field.place})` : field.file;
  for (const name of [".previous", ".next"]) place.querySelector(name).hidden = !field.several;
  const svg = place.querySelector("svg");
  svg.setAttribute("viewBox", `0 0 ${field.width} ${field.height}`);
  const letters = (12 * field.width) / (place.querySelector(".sheet").clientWidth || 480);
  const others = place.querySelector(".others").checked;
  const kinds = new Map(current(state).map((cell) => [cell.id, cell]));
  const boxes = field.boxes.filter((box) => others || !box.other || kinds.has(box.id));
  svg.replaceChildren(...boxes.map((box) => drawBox(state, box, kinds.get(box.id), letters)));
  mark(state);
}

function drawBox(state, box, cell, letters) {
  const kind = kindOf(state, cell ? cell.kind : box.kind);
  const [left, top, right, bottom] = box.box;
  const group = shape("g", {});
  group.dataset.id = box.id;
  const at = { x: left, y: top, width: right - left, height: bottom - top, "vector-effect": "non-scaling-stroke" };
  const dash = { platelet: "2 3" }[box.object] || "none";
  const width = box.other ? 1.5 : 2.5;
  const line = shape("rect", { ...at, stroke: kind.colour, "stroke-width": width, "stroke-dasharray": dash }, "box");
  const title = shape("title", {});
  title.textContent = `${box.number} ${kind.title}`;
  group.append(shape("rect", { ...at, "stroke-width": width + 2, opacity: 0.7 }, "halo"), line);
  if (!box.other || cell) {
    const was = cell && cell.kind !== cell.model ? `${kindOf(state, cell.model).short}→` : "";
    const text = `${box.number} ${was}${kind.short}`;
    const high = 1.25 * letters;
    const y = top >= high ? top - high : top;
    group.append(shape("rect", { x: left, y, width: letters * (0.62 * text.length + 0.5), height: high, fill: kind.colour },
      "plate"));
    const words = shape("text", { x: left + 0.25 * letters, y: y + 0.95 * letters, "font-size": letters,
      fill: ink(kind.colour) });
    words.textContent = text;
    group.append(words);
  }
  group.append(shape("rect", at, "hit"), title);
  return group;
}

function choose(state, ids) {
  state.chosen = ids;
  state.told = "";
  mark(state);
  emit(state, { type: "choose", cells: ids });
}

function pick(state, id, event) {
  const order = inOrder(state);
  if (event.shiftKey && state.anchor && order.includes(state.anchor) && order.includes(id)) {
    const [from, to] = [order.indexOf(state.anchor), order.indexOf(id)].sort((a, b) => a - b);
    choose(state, [...order.slice(from, to + 1).filter((one) => one !== id), id]);
    return;
  }
  state.anchor = id;
  if (event.ctrlKey || event.metaKey) {
    choose(state, state.chosen.includes(id) ? state.chosen.filter((one) => one !== id) : [...state.chosen, id]);
  } else choose(state, [id]);
}

function give(state, kind) {
  const cells = state.chosen;
  if (!cells.length || !kind) return;
  const order = inOrder(state);
  const after = order.slice(order.indexOf(cells[cells.length - 1]) + 1).find((id) => !cells.includes(id));
  const next = after || cells[cells.length - 1];
  const title = kindOf(state, kind).title;
  state.told = cells.length === 1 ? `Given: ${title}.` : `${cells.length} cells given: ${title}.`;
  state.anchor = next;
  emit(state, { type: "give", kind, cells, next: [next] }, true);
  state.chosen = [next];
  draw(state);
}

function move(state, event) {
  const order = inOrder(state);
  if (!order.length) return;
  const last = state.chosen[state.chosen.length - 1];
  const at = order.indexOf(last);
  const node = state.nodes.get(last);
  let to = at;
  if (event.key === "ArrowRight") to = at + 1;
  else if (event.key === "ArrowLeft") to = at - 1;
  else if (event.key === "Home") to = 0;
  else if (event.key === "End") to = order.length - 1;
  else if (node) {
    const down = event.key === "ArrowDown" ? 1 : -1;
    const { left, top } = node.getBoundingClientRect();
    for (let next = at + down; next >= 0 && next < order.length; next += down) {
      const other = state.nodes.get(order[next]).getBoundingClientRect();
      if (Math.abs(other.left - left) < 8 && down * (other.top - top) > 8) { to = next; break; }
      if (down * (other.top - top) > 2.5 * node.offsetHeight) { to = next; break; }
    }
  }
  pick(state, order[Math.max(0, Math.min(order.length - 1, to))], { shiftKey: event.shiftKey });
}

function listen(state) {
  const gallery = state.root.querySelector(".gallery");
  gallery.onclick = (event) => {
    const cell = event.target.closest(".cell");
    if (cell) pick(state, cell.dataset.id, event);
  };
  gallery.ondragstart = (event) => {
    const cell = event.target.closest(".cell");
    if (cell && !state.chosen.includes(cell.dataset.id)) choose(state, [cell.dataset.id]);
    event.dataTransfer.setData("text/plain", "cells");
  };
  gallery.onkeydown = (event) => {
    if (event.target !== gallery || event.altKey) return;
    const command = event.ctrlKey || event.metaKey;
    if (/^(Arrow|Home|End)/.test(event.key)) move(state, event);
    else if (command && event.key.toLowerCase() === "z") emit(state, { type: event.shiftKey ? "redo" : "undo" }, true);
    else if (command && event.key.toLowerCase() === "y") emit(state, { type: "redo" }, true);
    else if (command && event.key.toLowerCase() === "a") choose(state, inOrder(state));
    else if (!command && event.key === "Enter") {
      emit(state, { type: "approve", cells: state.chosen }, true);
    } else {
      const kind = !command && state.data.kinds.find((one) => one.key && one.key === event.key.toLowerCase());
      if (!kind) return;
      give(state, kind.name);
    }
    event.preventDefault();
    event.stopPropagation();
  };
  state.root.querySelector("svg").onclick = (event) => {
    const box = event.target.closest("g");
    if (box) { pick(state, box.dataset.id, event); gallery.focus({ preventScroll: true }); }
  };
  state.root.querySelector(".review").onchange = (event) => {
    state.onlyReview = event.target.checked;
    drawGallery(state);
  };
  state.root.querySelector(".others").onchange = () => drawField(state);
  state.root.querySelector(".previous").onclick = () => emit(state, { type: "field", step: -1 }, true);
  state.root.querySelector(".next").onclick = () => emit(state, { type: "field", step: 1 }, true);
  const enlarge = state.root.querySelector(".enlarge");
  enlarge.onclick = () => {
    const large = state.root.querySelector(".split").classList.toggle("large");
    enlarge.textContent = large ? "Shrink" : "Enlarge";
    enlarge.setAttribute("aria-pressed", String(large));
    drawField(state);
  };
  new ResizeObserver(() => { if (state.data) drawField(state); }).observe(state.root.querySelector(".field"));
}
