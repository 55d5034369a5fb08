
"use strict";
const form = document.querySelector("#filters");
const figures = [...document.querySelectorAll("figure")];
const dialog = document.querySelector("dialog");
const stage = dialog.querySelector(".stage");
let shown = -1;

function filter() {
  const wanted = [...form.querySelectorAll("select")].filter((select) => select.value !== "").map((select) => [select.dataset.kind, select.value]);
  for (const figure of figures) figure.hidden = !wanted.every(([kind, value]) => figure.dataset[kind].split(" ").includes(value));
  for (const section of document.querySelectorAll(".pictures")) section.hidden = !section.querySelector("figure:not([hidden])");
  for (const bar of document.querySelectorAll(".bar")) bar.classList.toggle("chosen", wanted.some(([kind, value]) => bar.dataset.kind === kind && bar.dataset.number === value));
  const visible = figures.filter((figure) => !figure.hidden).length;
  form.querySelector("output").value = wanted.length ? `${visible} of ${figures.length} pictures` : `${figures.length} picture${figures.length === 1 ? "" : "s"}`;
  form.querySelector("button").hidden = !wanted.length;
}

function fit() {
  const svg = stage.querySelector("svg");
  if (!svg) return;
  const { width, height } = svg.viewBox.baseVal;
  const box = svg.getBoundingClientRect();
  svg.style.setProperty("--u", Math.max(width / box.width, height / box.height));
}

function enlarge(place) {
  shown = place;
  stage.replaceChildren(figures[place].querySelector("svg, .missing").cloneNode(true));
  dialog.querySelector(".caption").replaceChildren(...[...figures[place].querySelector("figcaption").children].map((child) => child.cloneNode(true)));
  if (!dialog.open) dialog.showModal();
  fit();
}

function step(by) {
  for (let place = shown + by; place >= 0 && place < figures.length; place += by) if (!figures[place].hidden) return enlarge(place);
}

document.documentElement.classList.add("scripted");
form.hidden = !figures.length;
form.addEventListener("change", filter);
form.addEventListener("reset", () => setTimeout(filter));
for (const bar of document.querySelectorAll(".bar")) bar.addEventListener("click", () => {
  const select = form.querySelector(`select[data-kind="${bar.dataset.kind}"]`);
  select.value = select.value === bar.dataset.number ? "" : bar.dataset.number;
  filter();
});
figures.forEach((figure, place) => {
  const picture = figure.querySelector(".picture");
  picture.tabIndex = 0;
  picture.setAttribute("role", "button");
  picture.addEventListener("click", () => enlarge(place));
  picture.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(place); } });
});
for (const button of dialog.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => { if (event.key === "ArrowLeft") step(-1); if (event.key === "ArrowRight") step(1); });
stage.addEventListener("click", (event) => { if (event.target === stage) dialog.close(); });
addEventListener("resize", fit);
filter();
