"""The interactive page of `picture.py`: one text, `__DATA__` stands for the JSON it draws."""

PAGE = r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Memory mapping</title>
<style>
  html, body { height: 100%; margin: 0; }
  body { display: flex; flex-direction: column; color: #22262e; background: #fff;
         font: 14px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  header { padding: 14px 20px 8px; }
  h1 { font-size: 20px; margin: 0 0 2px; }
  #facts { color: #555b66; }
  #facts span + span::before { content: "·"; margin: 0 9px; }
  #bar { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center; margin-top: 8px; }
  #bar i { display: inline-block; width: 22px; height: 13px; border-radius: 2px; margin-right: 6px;
           vertical-align: -2px; }
  #bar input { font: inherit; padding: 2px 8px; width: 230px; border: 1px solid #b9bec8;
               border-radius: 4px; }
  #hint { color: #8a8f98; float: right; }
  main { flex: 1; min-height: 420px; position: relative; margin: 0 8px 8px; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; }
  #tip { position: fixed; display: none; pointer-events: none; max-width: 540px; z-index: 1;
         padding: 7px 11px; border-radius: 5px; color: #fff; background: #22262eee;
         font-size: 13px; overflow-wrap: anywhere; }
  #tip b { display: block; }
</style>
</head>
<body>
<header>
  <div id="hint">wheel: zoom &nbsp; drag: move &nbsp; double click: all</div>
  <h1></h1>
  <div id="facts"></div>
  <div id="bar"><input type="search" placeholder="find a value" aria-label="find a value"></div>
</header>
<main><canvas></canvas></main>
<div id="tip"></div>
<script>
"use strict";
const D = __DATA__;
const T = D.steps.length, INK = "#22262e", GRAY = "#8a8f98", STALL = "#d62728";
const MEMORY = "#5b6470", ARITHMETIC = "#dfe2e6", QUEUE = "#958cc0";
const LEFT = 76, RIGHT = 12, GAP = 12, BOUND = 10, AXIS = 34;
const $ = (selector) => document.querySelector(selector);
const canvas = $("canvas"), context = canvas.getContext("2d"), tip = $("#tip");
const view = { low: 0, high: D.total };
let width = 0, height = 0, panels = {}, wanted = "", hovered = null, grabbed = null;

document.title = D.title;
$("h1").textContent = D.title;
for (const fact of D.facts) $("#facts").append(element("span", fact));
for (const kind of Object.keys(D.colors).filter((k) => D.boxes.some((b) => b.kind === k)))
  legend(kind, D.colors[kind]);
legend("being copied in", stripes(GRAY, "#e6e6e6", 45));
legend("being copied out", stripes("#fff", GRAY, -45));
legend("stall", stripes(STALL, "#f8d8d8", 45));
legend("bound by memory", MEMORY);
legend("bound by arithmetic", ARITHMETIC);
if (D.reserved)
  legend("reserved by an instruction", stripes("#c4c7cc", "#eee", 45));

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
function stripes(line, ground, angle) {
  return `repeating-linear-gradient(${angle}deg, ${line} 0 1.5px, ${ground} 1.5px 5px)`;
}
function legend(text, background) {
  const item = element("span", text), patch = document.createElement("i");
  patch.style.background = background;
  item.prepend(patch);
  $("#bar").append(item);
}

const UNITS = {
  time: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  size: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "bytes"]],
};
function unit(kind, largest) {
  return UNITS[kind].find(([scale]) => largest >= scale) || UNITS[kind].at(-1);
}
function format(kind, value) {
  const [scale, name] = unit(kind, value);
  return `${+(value / scale).toPrecision(4)} ${name}`;
}
const x = (time) => LEFT + (time - view.low) / (view.high - view.low) * (width - LEFT - RIGHT);
const timeAt = (px) => view.low + (px - LEFT) / (width - LEFT - RIGHT) * (view.high - view.low);
const y = (panel, value) => panel.bottom - value / panel.top_value * (panel.bottom - panel.top);

function hatch(color, angle) {
  const tile = document.createElement("canvas"), c = tile.getContext("2d");
  tile.width = tile.height = 8;
  c.strokeStyle = color;
  c.lineWidth = 1.3;
  for (const shift of [-8, 0, 8]) {
    c.beginPath();
    if (angle > 0) { c.moveTo(shift, 8); c.lineTo(shift + 8, 0); }
    else { c.moveTo(shift, 0); c.lineTo(shift + 8, 8); }
    c.stroke();
  }
  return context.createPattern(tile, "repeat");
}
const HATCH = { stall: hatch(STALL, 1), out: hatch("#ffffffb0", -1), limit: hatch("#c4c7cc", 1) };
for (const [kind, color] of Object.entries(D.colors)) HATCH[kind] = hatch(color, 1);

function first(values, time) {  // index of the last entry that is not after `time`
  let low = 0, high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= time) low = middle; else high = middle - 1;
  }
  return low;
}

function layout() {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  width = box.width;
  height = box.height;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  let top = D.loops.length ? 20 : 8;
  const room = height - AXIS - 4 * GAP - BOUND - top;
  const panel = (share, top_value, label) => {
    const made = { top, bottom: top + share * room, top_value, label };
    top = made.bottom + GAP;
    return made;
  };
  const queued = D.queues[1].concat(D.queues[2]);
  const most = queued.reduce((a, b) => Math.max(a, b), 0) * 1.15 || D.total;
  panels = {
    used: panel(0.15, D.capacity * 1.12, "in use"),
    memory: panel(0.65, D.capacity, "offset in fast memory"),
    bound: panel(BOUND / room, 0, "bound"),
    copies_in: panel(0.1, most, "copies in"),
    copies_out: panel(0.1, most, "copies out"),
  };
  draw();
}

function draw() {
  const c = context;
  c.clearRect(0, 0, width, height);
  c.font = "11px system-ui, sans-serif";
  c.save();
  c.beginPath();
  c.rect(LEFT, 0, width - LEFT - RIGHT, height - AXIS + 1);
  c.clip();
  const from = first(D.arrive, view.low), to = Math.min(T, first(D.arrive, view.high) + 1);
  drawUsed(from, to);
  drawLimit(from, to);
  for (const box of D.boxes)
    if (box.x[2] >= view.low && box.x[0] <= view.high) drawBox(box);
  for (let t = from, next = from; t < to; t = next) {
    do next++; while (next < to && D.memory_bound[next] === D.memory_bound[t]
                      && D.begin[next] <= D.arrive[next]);
    c.fillStyle = D.memory_bound[t] ? MEMORY : ARITHMETIC;
    c.fillRect(x(D.begin[t]), panels.bound.top, x(D.arrive[next]) - x(D.begin[t]), BOUND);
  }
  drawQueue(panels.copies_in, D.queues[1]);
  drawQueue(panels.copies_out, D.queues[2]);
  for (let t = from; t <= to; t++) {
    if (D.begin[t] <= D.arrive[t]) continue;
    const left = x(D.arrive[t]), wide = Math.max(x(D.begin[t]) - left, 0.4);
    for (const p of Object.values(panels)) {
      c.fillStyle = "#d6272822";
      c.fillRect(left, p.top, wide, p.bottom - p.top);
      c.fillStyle = wide > 3 ? HATCH.stall : STALL;
      c.fillRect(left, p.top, wide, p.bottom - p.top);
    }
  }
  c.strokeStyle = INK;
  c.setLineDash([1, 3]);
  c.lineWidth = 1;
  for (const [low, high, text] of D.loops) {
    for (const time of [low, high]) line(x(time), panels.used.top, x(time), height - AXIS);
    c.fillStyle = INK;
    c.textAlign = "center";
    if (x(high) - x(low) > 50)
      c.fillText(`loop ${text}`, (Math.max(x(low), LEFT) + Math.min(x(high), width)) / 2,
                 panels.used.top - 9);
  }
  c.setLineDash([]);
  c.restore();
  drawAxes();
}

function line(x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function drawUsed(from, to) {
  const p = panels.used, c = context;
  c.beginPath();
  c.moveTo(x(D.arrive[from]), p.bottom);
  for (let t = from; t < to; t++) {
    if (D.begin[t] > D.arrive[t]) {
      c.lineTo(x(D.arrive[t]), y(p, D.used_in_stall[t]));
      c.lineTo(x(D.begin[t]), y(p, D.used_in_stall[t]));
    }
    c.lineTo(x(D.begin[t]), y(p, D.used[t]));
    c.lineTo(x(D.arrive[t + 1]), y(p, D.used[t]));
  }
  c.lineTo(x(D.arrive[to]), p.bottom);
  c.fillStyle = "#8a8f9859";
  c.fill();
  c.strokeStyle = INK;
  c.lineWidth = 1;
  c.stroke();
  c.setLineDash([6, 4]);
  line(LEFT, y(p, D.capacity), width, y(p, D.capacity));
  c.setLineDash([]);
}

function drawLimit(from, to) {
  const p = panels.memory;
  for (let t = from; t < to; t++) {
    if (D.limit[t] >= D.capacity) continue;
    const box = [x(D.begin[t]), p.top, x(D.arrive[t + 1]) - x(D.begin[t]),
                 y(p, D.limit[t]) - p.top];
    context.fillStyle = "#eee";
    context.fillRect(...box);
    context.fillStyle = HATCH.limit;
    context.fillRect(...box);
  }
}

function drawBox(box) {
  const c = context, p = panels.memory, top = y(p, box.y[1]), high = y(p, box.y[0]) - top;
  const [start, ready, end] = box.x.map(x);
  const found = wanted && box.name.toLowerCase().includes(wanted);
  c.globalAlpha = wanted && !found ? 0.15 : 1;
  if (ready > start) {
    c.fillStyle = D.colors[box.kind] + "40";
    c.fillRect(start, top, ready - start, high);
    c.fillStyle = HATCH[box.kind];
    c.fillRect(start, top, ready - start, high);
  }
  c.fillStyle = D.colors[box.kind];
  c.fillRect(ready, top, Math.max(end - ready, 0.5), high);
  if (box.out) {
    c.fillStyle = HATCH.out;
    c.fillRect(x(box.out[0]), top, x(box.out[1]) - x(box.out[0]), high);
  }
  const wide = Math.max(end - start, 0.5);
  c.lineWidth = box === hovered || found ? 2 : 0.6;
  c.strokeStyle = box === hovered || found ? INK : "#fff";
  if (wide > 2.5 || box === hovered || found) c.strokeRect(start, top, wide, high);
  const seen = [Math.max(start, LEFT), Math.min(end, width - RIGHT)];
  const letters = Math.floor((seen[1] - seen[0] - 8) / 6.2);
  if (high > 13 && letters >= Math.min(box.name.length, 8)) {
    const name = box.name.length <= letters ? box.name : `${box.name.slice(0, letters - 1)}…`;
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.lineWidth = 3;
    c.strokeStyle = "#ffffffcc";
    c.strokeText(name, (seen[0] + seen[1]) / 2, top + high / 2);
    c.fillStyle = INK;
    c.fillText(name, (seen[0] + seen[1]) / 2, top + high / 2);
  }
  c.globalAlpha = 1;
}

function drawQueue(panel, values) {
  const times = D.queues[0], c = context;
  const from = Math.max(first(times, view.low) - 4, 0);
  const to = Math.min(first(times, view.high) + 5, times.length);
  c.beginPath();
  c.moveTo(x(times[from]), panel.bottom);
  for (let k = from; k < to; k++) c.lineTo(x(times[k]), y(panel, values[k]));
  c.lineTo(x(times[to - 1]), panel.bottom);
  c.fillStyle = QUEUE;
  c.fill();
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power, result = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) result.push(k * step);
  return result;
}

function drawAxes() {
  const c = context;
  c.fillStyle = INK;
  c.strokeStyle = INK;
  c.lineWidth = 1;
  c.textBaseline = "middle";
  for (const [key, p] of Object.entries(panels)) {
    c.textAlign = "right";
    if (key === "bound") {
      c.fillText(p.label, LEFT - 6, (p.top + p.bottom) / 2);
      continue;
    }
    const [scale, name] = unit(key.startsWith("copies") ? "time" : "size", p.top_value / 1.15);
    line(LEFT, p.top, LEFT, p.bottom);
    line(LEFT, p.bottom, width - RIGHT, p.bottom);
    for (const value of ticks(0, p.top_value / scale, Math.max(2, (p.bottom - p.top) / 45))) {
      c.fillText(+value.toPrecision(3), LEFT - 6, y(p, value * scale));
      line(LEFT - 4, y(p, value * scale), LEFT, y(p, value * scale));
    }
    c.save();
    c.translate(13, (p.top + p.bottom) / 2);
    c.rotate(-Math.PI / 2);
    c.textAlign = "center";
    const label = `${p.label} (${name})`, short = p.bottom - p.top < 70;
    if (short) { c.fillText(p.label, 0, 0); c.fillText(`(${name})`, 0, 13); }
    else c.fillText(label, 0, 0);
    c.restore();
  }
  const [scale, name] = unit("time", view.high);
  c.textAlign = "center";
  const digits = Math.max(3, Math.ceil(Math.log10(view.high / (view.high - view.low))) + 2);
  for (const value of ticks(view.low / scale, view.high / scale, width / 110)) {
    line(x(value * scale), height - AXIS, x(value * scale), height - AXIS + 5);
    c.fillText(+value.toPrecision(digits), x(value * scale), height - AXIS + 13);
  }
  c.fillText(`modelled time (${name})`, (LEFT + width) / 2, height - 7);
}

function showTip(event) {
  const box = canvas.getBoundingClientRect();
  const px = event.clientX - box.left, py = event.clientY - box.top, time = timeAt(px);
  const p = panels.memory, before = hovered;
  hovered = null;
  if (px < LEFT || time > D.total) { tip.style.display = "none"; }
  else {
    if (py >= p.top && py <= p.bottom) {
      const offset = (p.bottom - py) / (p.bottom - p.top) * p.top_value;
      hovered = D.boxes.find((b) => b.x[0] <= time && time <= b.x[2]
                             && b.y[0] <= offset && offset < b.y[1]) || null;
    }
    tip.replaceChildren(...(hovered ? [element("b", hovered.name),
      ...hovered.lines.map((text) => element("div", text))] : stepLines(time)));
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  }
  if (before !== hovered) draw();
}

function stepLines(time) {
  const t = first(D.arrive, time), stall = D.begin[t] - D.arrive[t];
  const waits = stall > 0 ? [element("div", `waits ${format("time", stall)} for copies`)] : [];
  if (t === T) return [element("b", "the end of the program"), ...waits];
  const elapsed = D.arrive[t + 1] - D.begin[t];
  const bound = D.memory_bound[t] ? "memory" : "arithmetic";
  return [element("b", `${D.steps[t]} (step ${t})`),
          element("div", `${format("time", elapsed)}, bound by ${bound}`), ...waits,
          element("div", `${format("size", D.used[t])} in use, ${format("time",
            D.queues[1][4 * t + 2])} of copies in and ${format("time",
            D.queues[2][4 * t + 2])} of copies out waiting`)];
}

function show(low, high) {
  const span = Math.min(Math.max(high - low, D.total * 1e-6), D.total);
  view.low = Math.min(Math.max(low, 0), D.total - span);
  view.high = view.low + span;
  draw();
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const time = timeAt(event.clientX - canvas.getBoundingClientRect().left);
  const factor = Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY * 0.002)));
  show(time - (time - view.low) * factor, time + (view.high - time) * factor);
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => {
  grabbed = { px: event.clientX, ...view };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!grabbed) { showTip(event); return; }
  const span = grabbed.high - grabbed.low;
  const moved = (event.clientX - grabbed.px) / (width - LEFT - RIGHT) * span;
  tip.style.display = "none";
  show(grabbed.low - moved, grabbed.high - moved);
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => { grabbed = null; });
canvas.addEventListener("pointerleave", () => {
  tip.style.display = "none";
  hovered = null;
  draw();
});
canvas.addEventListener("dblclick", () => show(0, D.total));
$("input").addEventListener("input", (event) => {
  wanted = event.target.value.trim().toLowerCase();
  draw();
});
window.addEventListener("resize", layout);
layout();
</script>
</body>
</html>
"""
