"use strict";
// What the portal gains with scripts: amounts to press, and what an amount buys. All else is HTML.

const form = document.getElementById("buy");
const amount = document.getElementById("amount");
const gives = document.getElementById("gives");

// Whole numbers only: 3 CHF buy 1 USD, cut to four decimals as the server shows it.
function rappen(typed) {
  const match = /^(\d{1,3}(?:['’]\d{3})+|\d{1,7})(?:[.,](\d{1,2}))?$/.exec(typed.trim());
  return match ? BigInt(match[1].replace(/['’]/g, "")) * 100n + BigInt((match[2] || "").padEnd(2, "0")) : null;
}

function usd(paid) {
  const steps = (paid * 2n * 10000n + 300n) / 600n;  // rounded to the nearest; thirds have no ties
  const [whole, rest] = [steps / 10000n, String(steps % 10000n).padStart(4, "0")];
  return `${String(whole).replace(/\B(?=(\d{3})+$)/g, "'")}.${rest.replace(/00$/, "")}`;
}

function tell() {
  const paid = rappen(amount.value);
  gives.hidden = paid === null;
  if (paid !== null) gives.textContent = gives.dataset.text.replace("#", usd(paid));
  for (const button of form.querySelectorAll("[data-amount]")) {
    button.setAttribute("aria-pressed", String(rappen(button.dataset.amount) === paid));
  }
}

if (form) {
  form.querySelector(".presets").hidden = false;
  for (const button of form.querySelectorAll("[data-amount]")) {
    button.addEventListener("click", () => { amount.value = button.dataset.amount; tell(); });
  }
  amount.addEventListener("input", tell);
  tell();
}

// A second press would begin a second purchase.
for (const each of document.querySelectorAll("form")) {
  each.addEventListener("submit", (event) => {
    if (each.dataset.sent) event.preventDefault();
    each.dataset.sent = "1";
  });
}
window.addEventListener("pageshow", () => {
  for (const each of document.querySelectorAll("form")) delete each.dataset.sent;
});
