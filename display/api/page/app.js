// The page keeps the last answer, so that it can say what was last known when
// the network is gone. It refreshes shortly before its token ends, each phone
// at a moment of its own, and backs off when it is refused: errors must not
// make a crowd ask more.
"use strict";

const $ = (id) => document.getElementById(id);
const text = {
  zh: {
    offline: (t) => `无网络：以下是 ${t} 的结果`, stale: "数据可能不是最新，请看下面的说明", expired: "二维码已过期，等待网络恢复",
    offlineQR: (t) => `离线码，${t} 前有效`, none: "无", hours: (h) => `${h} 小时前采样`, doses: (n, d) => n ? `${n} 剂，最近 ${d}` : "无记录",
    asOf: (t) => `截至 ${t}`, from: { middle_store: "", other_carrier: "（来自另一运营商）", last_known: "（本机最后一次查到）", none: "查不到" },
    status: { none: "无记录", pending: "等待结果", negative: "阴性", inconclusive: "需重新采样", conflict: "结果矛盾，需单人复核", pool_positive_retest: "混管阳性，需单人复核", positive: "阳性" },
    qr: "核验二维码", comma: "，", nodata: "查不到",
  },
  en: {
    offline: (t) => `No network: this is what was known at ${t}`, stale: "The data may not be the newest; see below", expired: "The picture has expired; waiting for the network",
    offlineQR: (t) => `Offline code, counts until ${t}`, none: "none", hours: (h) => `sampled ${h} h ago`, doses: (n, d) => n ? `${n} doses, the last on ${d}` : "none on record",
    asOf: (t) => `as of ${t}`, from: { middle_store: "", other_carrier: "(from the other carrier)", last_known: "(last known here)", none: "out of reach" },
    status: { none: "none on record", pending: "waiting for the result", negative: "negative", inconclusive: "test again", conflict: "results differ: retest", pool_positive_retest: "pool positive: single retest", positive: "positive" },
    qr: "Code for gates to scan", comma: ", ", nodata: "out of reach",
  },
};

const store = {
  get(k) { try { return localStorage.getItem(k); } catch { return null; } },
  set(k, v) { try { v === null ? localStorage.removeItem(k) : localStorage.setItem(k, v); } catch { /* a private window keeps nothing */ } },
};

let lang = store.get("lang") || (navigator.language.startsWith("zh") ? "zh" : "en");
let person = new URLSearchParams(location.search).get("person") || store.get("person");
let last = JSON.parse(store.get("last") || "null");
let failures = 0, timer = 0, reachable = true;

// One civil time, as in the reasons, wherever the phone thinks it is.
const civil = { hour12: false, timeZone: "Asia/Shanghai" };
const clock = (t) => new Date(t).toLocaleTimeString(lang === "zh" ? "zh-CN" : "en-GB", civil);
const moment = (t) => new Date(t).toLocaleString(lang === "zh" ? "zh-CN" : "en-GB", civil);
const live = (t) => t && Date.parse(t) > Date.now();

function words() {
  document.documentElement.lang = lang;
  for (const e of document.querySelectorAll("[data-zh]")) e.textContent = e.dataset[lang];
  $("lang").textContent = lang === "zh" ? "English" : "中文";
}

function show() {
  words();
  $("ask").hidden = Boolean(person);
  $("code").hidden = !(person && last);
  $("card").dataset.colour = person && last ? last.answer.colour : "none";
  if (!person || !last) return;
  const t = text[lang], a = last.answer;
  $("state").textContent = !reachable ? t.offline(moment(last.at)) : a.data.stale ? t.stale : "";
  $("word").textContent = a.word;
  picture(t, a);
  $("reasons").replaceChildren(...a.reasons.map((r) => {
    const li = document.createElement("li");
    li.textContent = r.text;
    li.dataset.level = r.level || "";
    return li;
  }));
  const n = a.nucleic;
  $("test").textContent = !n ? t.nodata : t.status[n.status] + (n.hours_since_sampling === null ? "" : t.comma + t.hours(n.hours_since_sampling));
  $("doses").textContent = !a.doses ? t.nodata : t.doses(a.doses.count, a.doses.last_day);
  $("data").textContent = (a.data.as_of ? t.asOf(moment(a.data.as_of)) : "") + " " + t.from[a.data.source];
}

function picture(t, a) {
  const online = live(a.token_expires_at) && a.qr;
  const offline = !online && last.offline && live(last.offline.until) && last.offline.colour === a.colour ? last.offline : null;
  $("qr").hidden = !online && !offline;
  if (online || offline) $("qr").src = online || offline.qr;
  $("qr").alt = t.qr;
  $("noqr").hidden = Boolean(online);
  $("noqr").textContent = offline ? t.offlineQR(moment(offline.until)) : t.expired;
}

async function ask(path, options) {
  const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (response.ok) return response;
  const wait = 1000 * Number(response.headers.get("Retry-After") || 0);
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.message || String(response.status)), { wait, refused: response.status < 500 && response.status !== 429, fix: problem.fix });
}

async function refresh() {
  clearTimeout(timer);
  if (!person) return;
  const query = new URLSearchParams({ person, lang, include: "qr" });
  if (last && last.answer.person === person && last.answer.seen) query.set("seen", last.answer.seen);
  let wait = 0;
  try {
    const answer = await (await ask("/v1/code?" + query)).json();
    const same = last && last.answer.person === person ? last.offline : null;
    last = { answer, at: Date.now(), offline: same };
    failures = 0;
    reachable = true;
    $("fault").textContent = "";
    store.set("person", person);
    keepOffline().catch(() => { /* the online code is there; the next refresh tries again */ });
  } catch (e) {
    reachable = false;
    if (e.refused && !last) { forget(); $("fault").textContent = e.message + (e.fix ? " (" + e.fix + ")" : ""); return; }
    failures++;
    wait = Math.max(e.wait || 0, Math.min(60000, 2000 * 2 ** Math.min(failures, 5)) * (0.5 + Math.random()));
  }
  store.set("last", JSON.stringify(last));
  show();
  timer = setTimeout(refresh, wait || pace());
}

// pace is when to ask again: some time in the last third of the token's life.
function pace() {
  if (!last.answer.qr) return 5000 * (0.5 + Math.random()); // the picture was not drawn in time
  const left = Date.parse(last.answer.token_expires_at || 0) - Date.now();
  return Math.max(5000, Math.min(60000, (left || 30000) * (0.55 + 0.3 * Math.random())));
}

// keepOffline keeps a code for a day without network, renewed when half of it
// is over or the colour has changed.
async function keepOffline() {
  const a = last.answer;
  if (last.offline && last.offline.colour === a.colour && Date.parse(last.offline.until) - Date.now() > 12 * 3600e3) return;
  const image = await ask("/v1/code.png?" + new URLSearchParams({ person: a.person, include: "offline" }));
  const blob = await image.blob();
  const qr = await new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = fail;
    reader.readAsDataURL(blob);
  });
  if (last.answer.person !== a.person) return;
  last.offline = { qr, colour: a.colour, until: image.headers.get("X-Token-Expires-At") };
  store.set("last", JSON.stringify(last));
}

function forget() {
  person = null;
  last = null;
  store.set("person", null);
  store.set("last", null);
  clearTimeout(timer);
  show();
}

$("lang").onclick = () => { lang = lang === "zh" ? "en" : "zh"; store.set("lang", lang); show(); refresh(); };
$("forget").onclick = () => { history.replaceState(null, "", "/"); forget(); };
$("kind").onchange = () => { $("countryline").hidden = $("kind").value !== "passport"; };
$("ask").onsubmit = async (event) => {
  event.preventDefault();
  const document = { kind: $("kind").value, number: $("number").value };
  if (document.kind === "passport") document.country = $("country").value;
  try {
    const response = await ask("/v1/persons/resolve", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ document }) });
    person = (await response.json()).person;
    last = null;
    $("number").value = "";
    $("fault").textContent = "";
    await refresh();
  } catch (e) {
    $("fault").textContent = e.message + (e.fix ? " (" + e.fix + ")" : "");
  }
};

// A code that ticks is harder to pass off with a screenshot, and the picture
// must vanish at the second it expires.
setInterval(() => {
  $("clock").textContent = clock(Date.now());
  if (person && last && last.answer.qr && !live(last.answer.token_expires_at)) show();
}, 1000);
addEventListener("online", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden && person && (!last || !live(last.answer.token_expires_at))) refresh(); });

if (last && person && last.answer.person !== person) last = null;
reachable = navigator.onLine;
show();
refresh();
