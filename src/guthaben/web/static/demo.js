"use strict";
// The demo's page: it knows nothing that the JSON API doesn't tell everybody.

const $ = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name=${name}]`).content;
const token = meta("csrf-token");
const HOLD_USD = "0.25";
let shown = "topups";
let auto = null;
let notice = null;

// ---- talking to the API

class Refused extends Error {
  constructor(problem) { super(problem.detail); this.problem = problem; }
}

async function api(method, path, body) {
  const headers = method === "GET" ? {} : { "X-CSRF-Token": token };
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (answer.status === 401) reloadOnce();  // the server was started anew
  const found = await answer.json();
  if (!answer.ok) throw new Refused(found);
  return found;
}

function reloadOnce() {
  const last = Number(sessionStorage.getItem("reloaded") || 0);
  if (Date.now() - last < 10000) return;
  sessionStorage.setItem("reloaded", Date.now());
  location.reload();
}

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// ---- amounts: strings and whole numbers, never fractions of a computer

const nano = (usd) => {
  const [whole, rest = ""] = usd.replace("-", "").split(".");
  const value = BigInt(whole) * 1000000000n + BigInt(rest.padEnd(9, "0"));
  return usd.startsWith("-") ? -value : value;
};
const short = (usd) => {
  const [whole, rest] = usd.split(".");
  return `${whole}.${rest.slice(0, 4).padEnd(4, "0").replace(/00$/, "")}`;
};
const percent = (part, all) => (all > 0n ? Number((part * 10000n) / all) / 100 : 0);
const when = (seconds) => new Date(seconds * 1000).toLocaleString(undefined,
  { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = (seconds) => new Date(seconds * 1000).toLocaleDateString(undefined,
  { day: "numeric", month: "long", year: "numeric" });
const NAMES = { topup_purchase: "Purchase", auto_topup_purchase: "Automatic top-up",
  failed_auto_topup: "Automatic top-up", refund: "Refund", dispute: "Dispute",
  adjustment: "Adjustment" };
const words = (name) => NAMES[name] || name.replaceAll("_", " ");

// ---- balance

function showBalance(b) {
  $("available").textContent = short(b.available_usd);
  for (const part of ["allowance", "credit", "held", "debt"]) {
    $(part).textContent = short(b[`${part}_usd`]);
  }
  const parts = ["allowance", "credit", "held"].map((part) => nano(b[`${part}_usd`]));
  const included = nano(b.period.allowance_usd);
  const sum = parts.reduce((all, part) => all + part, 0n);
  const all = sum > included ? sum : included;
  ["allowance", "credit", "held"].forEach((part, i) => {
    $(`bar-${part}`).style.width = `${percent(parts[i], all)}%`;
  });
  $("period").textContent = b.period.license
    ? `${short(b.period.allowance_usd)} USD are included in the period that ends on ${day(b.period.end_s)}.`
    : "No licence, no allowance.";
}

// ---- notices

function showNotices(alarms) {
  const list = [];
  if (notice) list.push(notice);
  if (auto && auto.paused_reason) {
    list.push({ kind: "bad", text: `Automatic top-up is paused: ${words(auto.paused_reason)}. `
      + "Set up another card, or buy credit by hand." });
  }
  for (const alarm of alarms.filter((a) => a.code !== "auto_topup_paused")) {
    list.push({ kind: "bad", text: `Alarm for the operator: ${words(alarm.code)}.` });
  }
  const key = JSON.stringify(list);
  if ($("notices").dataset.key === key) return;
  $("notices").dataset.key = key;
  $("notices").replaceChildren(...list.map((n) => make("p", n.text, `notice ${n.kind}`)));
}

function tell(kind, text) {
  const told = { kind, text };
  notice = told;
  showNotices([]);
  if (kind !== "bad") setTimeout(() => { if (notice === told) notice = null; }, 8000);
}

// ---- automatic top-up

function showAuto(found) {
  auto = found;
  const paused = Boolean(found.paused_reason) && !found.enabled;
  $("auto-state").textContent = paused ? "paused" : found.enabled ? "on" : "off";
  $("auto-state").className = `chip ${paused ? "bad" : found.enabled ? "on" : ""}`;
  $("card-state").textContent = found.card_saved
    ? `A card is saved. This month ${found.spent_this_month_chf} of ${found.cap_chf} CHF were charged automatically.`
    : "No card is saved yet. Setting one up costs nothing and switches nothing on.";
  $("setup-button").textContent = found.card_saved ? "Set up another card" : "Set up a card";
  $("auto-fields").disabled = !found.card_saved;
  $("auto-on").textContent = found.enabled ? "Save changes" : "Switch on";
  $("auto-off").hidden = !found.enabled;
}

// Agreed to is the text that the server gives, with these numbers, and its version is what is stored.
let asked = 0, agreeing = null;

async function showConsent() {
  const mine = ++asked;
  agreeing = null;
  $("auto-consent").checked = false;
  $("auto-consent").disabled = true;
  const numbers = { amount_chf: $("auto-amount").value, cap_chf: $("auto-cap").value,
    trigger_percent: $("auto-trigger").value };
  let text, version = "";
  try {
    const query = new URLSearchParams({ language: "en", ...numbers });
    ({ text, version } = await api("GET", `/v1/auto-topup/consent-text?${query}`));
  } catch (error) {
    text = error.message;
  }
  if (mine !== asked) return;  // other numbers were typed meanwhile
  $("consent-text").textContent = text;
  $("auto-consent").disabled = !version;
  if (version) agreeing = { ...numbers, version };
}

async function showCardText() {
  const { text, version } = await api("GET", "/v1/payment-method/consent-text?language=en");
  $("card-text").textContent = text;
  $("save-card").value = version;
  $("save-card").disabled = false;
}

async function changeAuto(body) {
  try {
    showAuto(await api("PUT", "/v1/auto-topup", body));
    await showConsent();  // agreed to once; the next change is agreed to anew
    tell("good", auto.enabled ? "Automatic top-up is on." : "Automatic top-up is off.");
  } catch (error) {
    tell("bad", error.message);
  }
}

// ---- history

const sign = (usd) => (usd.startsWith("-") ? short(usd) : `+${short(usd)}`);
const STATUS = { succeeded: "good", settled: "good", settled_late: "good", failed: "bad",
  quarantined: "bad", pending: "wait", unknown: "wait", reserved: "wait" };
const chip = (status) => make("span", words(status), `chip ${STATUS[status] || ""}`);
const TABLES = {
  topups: {
    path: "/v1/topups?limit=12", rows: (found) => found.topups, empty: "Nothing was bought yet.",
    columns: [
      ["When", (t) => when(t.at_s)], ["What", (t) => words(t.event_type)],
      ["Status", (t) => chip(t.status)], ["Paid", (t) => (t.price_chf ? `${t.price_chf} CHF` : ""), 1],
      ["Credit", (t) => make("span", `${sign(t.amount_usd)} USD`, t.status !== "succeeded"
        ? "not-yet" : t.amount_usd.startsWith("-") ? "" : "plus"), 1],
      ["Reference", (t) => make("code", t.reference || t.session_reference || "")],
      ["Note", (t) => words(t.reason)],
    ],
  },
  statement: {
    path: "/v1/statement?limit=12", rows: (found) => found.entries, empty: "No change of credit yet.",
    columns: [
      ["No.", (e) => `${e.seq}`, 1], ["When", (e) => when(e.at_s)], ["What", (e) => words(e.what)],
      ["From", (e) => words(e.source)], ["To", (e) => words(e.target)],
      ["Amount", (e) => `${short(e.amount_usd)} USD`, 1],
      ["Call", (e) => make("code", e.call_id ? e.call_id.split("_").slice(0, 2).join(" ") : "")],
    ],
  },
  calls: {
    path: "/v1/calls?limit=12", rows: (found) => found.calls, empty: "No call was made yet.",
    columns: [
      ["Call", (c) => make("code", c.id.split("_").slice(0, 2).join(" "))],
      ["When", (c) => when(c.created_at_s)], ["Model", (c) => c.model],
      ["Status", (c) => chip(c.status)], ["Tokens", (c) => `${c.total_tokens || ""}`, 1],
      ["Reserved", (c) => `${short(c.reserved_usd)} USD`, 1],
      ["Cost", (c) => `${short(c.cost_usd)} USD`, 1],
    ],
  },
};

function showTable(kind, found) {
  const { rows, columns, empty } = TABLES[kind];
  const items = rows(found);
  if (!items.length) { $("list").replaceChildren(make("p", empty, "empty")); return; }
  const table = make("table"), head = make("tr"), body = make("tbody");
  for (const [title, , number] of columns) head.append(make("th", title, number ? "number" : ""));
  for (const item of items) {
    const row = make("tr");
    for (const [, show, number] of columns) {
      const cell = make("td", undefined, number ? "number" : "");
      cell.append(show(item));
      row.append(cell);
    }
    body.append(row);
  }
  const thead = make("thead");
  thead.append(head);
  table.append(thead, body);
  $("list").replaceChildren(table);
}

async function showTab(kind) {
  shown = kind;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${kind}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  $("list").setAttribute("aria-labelledby", `tab-${kind}`);
  showTable(kind, await api("GET", TABLES[kind].path));
}

async function refresh() {
  const [balance, settings, alarms, history] = await Promise.all([
    api("GET", "/v1/balance"), api("GET", "/v1/auto-topup"), api("GET", "/v1/admin/alarms"),
    api("GET", TABLES[shown].path)]);
  showBalance(balance);
  showAuto(settings);
  showNotices(alarms.alarms);
  showTable(shown, history);
}

// ---- simulated calls

// What is shown is asked for again in a moment, so a question that fails may be let go.
const quietly = (work) => work.catch(() => {});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const random = (least, most) => least + Math.floor(Math.random() * (most - least + 1));

async function simulatedCall(mark) {
  const key = `demo-${crypto.randomUUID()}`;
  mark.className = "open";
  try {
    const call = await api("POST", "/v1/reservations",
      { amount_usd: HOLD_USD, key, model: "demo-model", operation_type: "chat", ttl_s: 60 });
    await pause(random(250, 900));
    const millicents = random(4000, 21000);
    const input = random(200, 2000), output = random(50, 800);
    const cost_usd = `0.${String(millicents).padStart(5, "0")}`;
    const settled = await api("POST", `/v1/reservations/${call.id}/settle`,
      { cost_usd, model: "demo-model", input_tokens: input, output_tokens: output });
    mark.className = "done";
    return settled;
  } catch (error) {
    mark.className = "refused";
    throw error;
  }
}

async function makeCalls(count) {
  const marks = Array.from({ length: count }, () => make("i"));
  $("pulse").replaceChildren(...marks);
  for (const id of ["call-one", "call-many"]) $(id).disabled = true;
  $("call-result").textContent = count === 1 ? "Calling …" : `${count} calls under way …`;
  const watch = setInterval(
    () => quietly(api("GET", "/v1/balance").then(showBalance)), 300);
  const ends = await Promise.allSettled(marks.map(simulatedCall));
  clearInterval(watch);
  for (const id of ["call-one", "call-many"]) $(id).disabled = false;
  const done = ends.filter((end) => end.status === "fulfilled").map((end) => end.value);
  const refused = ends.filter((end) => end.status === "rejected");
  const sum = done.reduce((all, call) => all + nano(call.cost_usd), 0n);
  const cost = `0.${String(sum % 1000000000n).padStart(9, "0")}`.replace(/^0/, `${sum / 1000000000n}`);
  const parts = [];
  if (done.length) parts.push(`${done.length} settled for ${short(cost)} USD`);
  if (refused.length) {
    parts.push(`${refused.length} refused (${words(refused[0].reason.problem?.code || "no answer")})`);
  }
  $("call-result").textContent = `${parts.join(", ")}.`;
  await quietly(refresh());
}

// ---- buying, and coming back

function showBuys() {
  const chosen = document.querySelector("input[name=amount]:checked").value;
  const tenThousandths = (BigInt(chosen.replace(".", "")) * 200n + 3n) / 6n;
  const usd = `${tenThousandths / 10000n}.${String(tenThousandths % 10000n).padStart(4, "0")}`;
  $("buys").textContent = `${short(usd)} USD`;
}

async function leave(button, path, body, back) {
  const here = location.origin;
  button.disabled = true;
  try {
    const page = await api("POST", path,
      { ...body, success_url: `${here}/?back=${back}`, cancel_url: `${here}/?back=canceled` });
    location.assign(page.checkout_url);
  } catch (error) {
    button.disabled = false;
    tell("bad", error.message);
  }
}

function welcomeBack() {
  const back = new URLSearchParams(location.search).get("back");
  const said = { paid: ["good", "Thank you. The credit arrives as soon as the payment is confirmed."],
    card: ["good", "The card is saved. Nothing was charged, and nothing is switched on yet."],
    canceled: ["", "Nothing was paid."] }[back];
  if (said) tell(...said);
  if (back) history.replaceState(null, "", "/");
}

// ---- beginning

function listen() {
  $("call-one").addEventListener("click", () => makeCalls(1));
  $("call-many").addEventListener("click", () => makeCalls(20));
  for (const input of document.querySelectorAll("input[name=amount]")) {
    input.addEventListener("change", showBuys);
  }
  $("buy").addEventListener("submit", (event) => {
    event.preventDefault();
    const amount_chf = document.querySelector("input[name=amount]:checked").value;
    const kept = $("save-card");
    leave($("buy-button"), "/v1/topups", { amount_chf, language: "en", save_card: kept.checked,
      ...(kept.checked && { save_card_text_version: kept.value }) }, "paid");
  });
  $("setup-button").addEventListener("click",
    () => leave($("setup-button"), "/v1/payment-method/setup", {}, "card"));
  for (const id of ["auto-amount", "auto-trigger", "auto-cap"]) {
    $(id).addEventListener("input", showConsent);
  }
  $("auto").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!agreeing || !$("auto-consent").checked) {
      tell("bad", "Please agree to the text first.");
      return;
    }
    const { version, trigger_percent, ...amounts } = agreeing;
    changeAuto({ enabled: true, ...amounts, trigger_percent: Number(trigger_percent),
      consent_text_version: version, language: "en" });
  });
  $("auto-off").addEventListener("click", () => changeAuto({ enabled: false }));
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => quietly(showTab(tab.id.slice(4))));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
}

async function fillAuto() {
  const found = await api("GET", "/v1/auto-topup");
  if (found.enabled) {
    $("auto-amount").value = found.amount_chf;
    $("auto-trigger").value = found.trigger_percent;
    $("auto-cap").value = found.cap_chf;
  }
  await showConsent();
}

async function keepFresh() {
  for (;;) {
    await pause(2000);
    if (!document.hidden) await quietly(refresh());
  }
}

listen();
showBuys();
quietly(showCardText());
welcomeBack();
quietly(fillAuto()).then(() => quietly(refresh())).then(keepFresh);
