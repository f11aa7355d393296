// Parts of a page that stay up to date, the read-out of curves, and keys for lists. Everything works without this file.
"use strict";

const POLL_PAUSE_MS = 10000;

function keepLive(part) {
  const every = Number(part.dataset.every);
  let tag = "";
  async function look() {
    if (document.hidden) return every;
    try {
      const answer = await fetch(part.dataset.live, { headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag") || "";
        replace(part, await answer.text());
      }
      return every;
    } catch {
      return POLL_PAUSE_MS; // the server is away: ask less often until it is back
    }
  }
  (async function repeat() {
    setTimeout(repeat, await look());
  })();
}

// What names an element across two versions of a part.
function nameOf(element) {
  return element.dataset.name || element.getAttribute("href") || element.value || "";
}

function replace(part, html) {
  const fresh = document.createElement("div");
  fresh.innerHTML = html; // written by our own templates, which escape what models wrote
  if (fresh.innerHTML === part.innerHTML) return;
  const focused = part.contains(document.activeElement) ? nameOf(document.activeElement) : "";
  const current = part.querySelector("tr[aria-current] a");
  const checked = new Set([...part.querySelectorAll("input:checked")].map((box) => box.value));
  const opened = [...part.querySelectorAll("details")].map((item) => item.open);
  part.replaceChildren(...fresh.childNodes);
  for (const box of part.querySelectorAll("input[type=checkbox]")) box.checked = checked.has(box.value);
  [...part.querySelectorAll("details")].forEach((item, place) => { item.open = Boolean(opened[place]); });
  const find = (name) => [...part.querySelectorAll("[data-name], a, input")].find((item) => nameOf(item) === name);
  if (current) find(nameOf(current))?.closest("tr")?.setAttribute("aria-current", "true");
  if (focused) find(focused)?.focus({ preventScroll: true });
  prepare(part);
}

function showNumber(value, percent) {
  const size = Math.abs(value);
  const text = percent ? (100 * value).toFixed(1) + " %"
    : value === 0 || (size >= 0.01 && size < 1000) ? value.toFixed(2) : value.toPrecision(3);
  return text.replace("-", "−");
}

function readCurves(plot) {
  const data = JSON.parse(plot.dataset.plot);
  const [left, right, low, high] = data.x;
  const svg = plot.querySelector("svg"), cursor = plot.querySelector(".cursor"), readout = plot.querySelector(".readout");
  const resting = [...readout.childNodes].map((node) => node.cloneNode(true));
  const steps = [...new Set(data.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b);
  let place = steps.length - 1;

  function show(wanted) {
    place = Math.max(0, Math.min(steps.length - 1, wanted));
    const step = steps[place], x = left + (right - left) * (step - low) / (high - low);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    readout.replaceChildren(document.createTextNode("step " + step + "  "));
    for (const series of data.series) {
      const point = series.points.find((item) => item[0] === step);
      if (!point) continue;
      const span = document.createElement("span"), figure = document.createElement("b");
      span.textContent = series.label + " ";
      figure.textContent = showNumber(point[1], data.percent);
      span.append(figure);
      readout.append(span, " ");
    }
  }
  function rest() {
    cursor.setAttribute("visibility", "hidden");
    readout.replaceChildren(...resting.map((node) => node.cloneNode(true)));
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = low + (high - low) * ((event.clientX - box.left) * 460 / box.width - left) / (right - left);
    const distance = (at) => Math.abs(steps[at] - step);
    show(steps.reduce((best, _, at) => (distance(at) < distance(best) ? at : best), 0));
  });
  svg.addEventListener("pointerleave", rest);
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    show(place + move);
  });
}

function isTyping(target) {
  return target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null;
}

// Keys on a page: an element with data-key is clicked by its key; j and k walk the rows of a list.
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const rows = [...document.querySelectorAll("[data-rows] tbody tr")];
  const move = { j: 1, k: -1 }[event.key];
  if (rows.length && move) {
    const now = rows.findIndex((row) => row.hasAttribute("aria-current"));
    const next = rows[Math.max(0, Math.min(rows.length - 1, now + move))];
    rows.forEach((row) => row.removeAttribute("aria-current"));
    next.setAttribute("aria-current", "true");
    next.querySelector("a").focus();
    return;
  }
  const wanted = [...document.querySelectorAll("[data-key]")].find((item) => item.dataset.key === event.key);
  if (!wanted || wanted.disabled || event.repeat) return;
  event.preventDefault();
  if (wanted.matches("select")) {
    wanted.selectedIndex = (wanted.selectedIndex + 1) % wanted.length;
    wanted.dispatchEvent(new Event("change"));
  } else if (wanted.matches("input, textarea")) wanted.focus();
  else wanted.click();
}

function prepare(part) {
  part.querySelectorAll("[data-plot]").forEach(readCurves);
}

// A browser may refuse to keep anything; then nothing is remembered.
function recall(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    sessionStorage.setItem(name, value);
  } catch {
    return;
  }
}

document.addEventListener("keydown", onKey);
document.querySelectorAll("[data-live]").forEach(keepLive);
document.querySelectorAll("[data-shades]").forEach((choice) => {
  // The choice stays while one goes from negotiation to negotiation.
  const kept = recall("shades");
  if ([...choice.options].some((option) => option.value === kept)) choice.value = kept;
  const apply = () => { document.body.dataset.shade = choice.value; };
  choice.addEventListener("change", () => {
    remember("shades", choice.value);
    apply();
  });
  apply();
});
document.querySelectorAll("form[data-once]").forEach((form) => {
  // After the submission has been taken up, so that the pressed button still counts.
  form.addEventListener("submit", () => setTimeout(() => {
    form.querySelectorAll("button").forEach((button) => { button.disabled = true; });
  }));
});
document.querySelectorAll("[data-filter]").forEach((box) => {
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll(box.dataset.filter).forEach((item) => {
      const text = item.textContent.toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
    });
  });
});
prepare(document);
document.documentElement.dataset.ready = ""; // keys are heard from here on
