// A negotiation as it happens: moves arrive as events, messages are sent without leaving the page.
"use strict";

const moves = document.getElementById("moves"), statusLine = document.getElementById("status");
const draft = document.getElementById("draft"); // what is being written; read out once it is a message
const say = document.getElementById("say"), message = document.getElementById("message");

function apply(data) {
  for (const html of data.moves) moves.insertAdjacentHTML("beforeend", html); // escaped by our own templates
  if (statusLine.textContent !== data.status) statusLine.textContent = data.status;
  draft.hidden = !data.draft;
  draft.className = "bubble " + (data.writer === "B" ? "seat-b" : "seat-a");
  draft.querySelector(".who").textContent = data.writer;
  draft.querySelector(".text").textContent = data.draft;
  if (data.moves.length) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    moves.lastElementChild.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }
  if (say) say.querySelector("button").disabled = !data.turn;
  if (data.over) {
    document.getElementById("going").remove();
    document.getElementById("afterwards").hidden = false;
  }
}

function follow() {
  const stream = new EventSource(moves.dataset.events + "?after=" + moves.children.length);
  stream.addEventListener("change", (event) => {
    const data = JSON.parse(event.data);
    if (data.over) stream.close();
    apply(data);
  });
}

async function send() {
  const button = say.querySelector("button"), refused = document.getElementById("refused");
  if (button.disabled || !message.value.trim()) return;
  button.disabled = true;
  refused.textContent = "";
  const answer = await fetch(say.action, { method: "POST", body: new URLSearchParams(new FormData(say)), redirect: "manual" });
  if (answer.type === "opaqueredirect" || answer.ok) {
    message.value = "";
    message.focus();
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  refused.textContent = (page.querySelector(".lead") || page.body).textContent;
  button.disabled = false;
}

if (moves.dataset.over === "0") follow();
if (say) {
  say.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      send();
    }
  });
}
moves.dataset.ready = ""; // messages are sent by this script from here on
