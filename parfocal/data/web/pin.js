const key = event.target.closest(".pf-key");
const item = event.target.closest(".pf-item");
const leave = event.key === "Escape";
if (!item) return;
if (event.type === "keydown" && !leave && (!key || (event.key !== "Enter" && event.key !== " "))) return;
if (event.type === "keydown") event.preventDefault();
if (leave && key) key.blur();
const pin = !leave && key && key.dataset.key !== item.dataset.pin ? key.dataset.key : "";
if (pin) item.dataset.pin = pin;
else delete item.dataset.pin;
for (const node of item.querySelectorAll("[aria-pressed]"))
  node.setAttribute("aria-pressed", String(node.dataset.key === pin));
const list = item.querySelector(".pf-regions");
const entry = pin && list && list.querySelector("." + pin);
if (entry && !list.contains(event.target)) list.scrollTop = entry.offsetTop - list.clientHeight / 3;
