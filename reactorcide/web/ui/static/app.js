// Keeps pages current, and sends what buttons and forms ask for to the API.
// A page is only ever drawn by the service: after a change it is fetched again, and what differs is replaced.

const root = document.documentElement;
const api = root.dataset.api;
const REFRESH_EVERY_MS = 700;
const TRY_AGAIN_MS = 3000;

root.classList.add("scripted");

// --- calls ------------------------------------------------------------------------------------------------

async function call(method, path, body) {
  const headers = { "X-CSRF-Token": root.dataset.csrf ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(api + path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  const answer = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Error(answer.message ?? `the service answered ${response.status}`);
  return answer;
}

function complain(error) {
  const place = document.getElementById("problem");
  place.textContent = error instanceof TypeError ? "The service does not answer. Try again." : error.message;
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}

function filled(template, values) {
  return template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values[name] ?? ""));
}

async function send(element, method, path, body) {
  element.disabled = true;
  document.getElementById("problem").hidden = true;
  try {
    const answer = await call(method, path, body);
    if (element.dataset.next) location.href = filled(element.dataset.next, answer);
    else await refresh();
    return answer;
  } catch (error) {
    complain(error);
    return null;
  } finally {
    element.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-call]");
  if (!button) return;
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  const [method, path] = button.dataset.call.split(" ");
  send(button, method, path, button.dataset.body ? JSON.parse(button.dataset.body) : undefined);
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.matches("[data-filters]")) {
    // Empty fields would only make the address longer.
    for (const field of form.elements) field.disabled = field.name !== "" && field.value === "";
    return;
  }
  if (!form.dataset.call) return;
  event.preventDefault();
  const values = {};
  const body = {};
  for (const field of form.elements) {
    if (!field.name) continue;
    values[field.name] = field.value;
    if (field.matches("[data-path]")) continue;
    if (field.type === "checkbox") {
      body[field.name] ??= [];
      if (field.checked) body[field.name].push(field.value);
    } else if (field.value.trim() !== "") {
      const value = field.value.trim();
      body[field.name] = field.matches("[data-list]") ? value.split(/[\s,]+/) : value;
    }
  }
  const [method, path] = form.dataset.call.split(" ");
  const button = form.querySelector("button");
  if (form.dataset.next) button.dataset.next = form.dataset.next;
  const answer = await send(button, method, filled(path, values), body);
  if (answer && form.dataset.show) {
    const shown = form.querySelector(".shown");
    shown.textContent = answer[form.dataset.show];
    shown.hidden = false;
  }
  if (answer && !form.dataset.next && !form.dataset.show) form.reset();
});

// --- drawing anew -----------------------------------------------------------------------------------------

let refreshing = null;
let wanted = false;
let timer = 0;

function soon() {
  wanted = true;
  if (!timer && !refreshing) timer = setTimeout(refresh, REFRESH_EVERY_MS);
}

async function refresh() {
  clearTimeout(timer);
  timer = 0;
  if (refreshing) {
    wanted = true;
    return refreshing;
  }
  wanted = false;
  refreshing = draw().finally(() => {
    refreshing = null;
    if (wanted) soon();
  });
  return refreshing;
}

async function draw() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (response.status === 401) return location.reload();
  if (!response.ok) return undefined;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const main = document.getElementById("main");
  const next = page.getElementById("main");
  document.title = page.title;
  document.getElementById("icon").href = page.getElementById("icon").href;
  const problem = document.getElementById("problem");
  next.querySelector("#problem").replaceWith(problem.cloneNode(true));
  become(main, next);
  tick();
  document.dispatchEvent(new CustomEvent("drawn"));
  return undefined;
}

/** Change `old` into `next`, keeping elements that stay: their focus, their scrolling, what is typed. */
function become(old, next) {
  for (const { name } of [...old.attributes])
    if (!next.hasAttribute(name) && !(name === "open" && old.tagName === "DETAILS")) old.removeAttribute(name);
  for (const { name, value } of next.attributes)
    if (old.getAttribute(name) !== value && !(name === "open" && old.tagName === "DETAILS")) old.setAttribute(name, value);
  if (old.hasAttribute("data-keep")) return;
  const byKey = new Map();
  for (const child of old.children) if (keyOf(child)) byKey.set(keyOf(child), child);
  let at = old.firstChild;
  const children = [...next.childNodes];
  for (const [index, child] of children.entries()) {
    const known = keyOf(child) ? byKey.get(keyOf(child)) : undefined;
    // Texts on both sides of what has gone are two where the next page has one.
    while (at?.nodeType === Node.TEXT_NODE && child.nodeType !== Node.TEXT_NODE) {
      const extra = at;
      at = at.nextSibling;
      extra.remove();
    }
    // What is gone goes first, so that what comes after it is not taken for new.
    while (at && !known && !children.slice(index).some((later) => sameKind(at, later))) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
    if (known && known !== at && known.tagName === child.tagName) {
      old.insertBefore(known, at);
      become(known, child);
    } else if (at && sameKind(at, child)) {
      if (at.nodeType === Node.TEXT_NODE) {
        if (at.data !== child.data) at.data = child.data;
      } else become(at, child);
      at = at.nextSibling;
    } else {
      old.insertBefore(document.importNode(child, true), at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function sameKind(one, other) {
  if (one.nodeType !== other.nodeType) return false;
  if (one.nodeType === Node.TEXT_NODE) return true;
  return one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

/** What tells an element from others of its kind: its id, or that of a section's heading. */
function keyOf(node) {
  return node.id || node.getAttribute?.("aria-labelledby") || "";
}

// --- times ------------------------------------------------------------------------------------------------

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function span(seconds, parts = 2) {
  for (const [index, [size, unit]] of UNITS.entries()) {
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size);
    const smaller = UNITS[index + 1];
    const part = parts > 1 && smaller && whole < 10 ? Math.floor((seconds % size) / smaller[0]) : 0;
    return part ? `${whole} ${unit} ${part} ${smaller[1]}` : `${whole} ${unit}`;
  }
  return "0 s";
}

function tick() {
  const now = Date.now();
  for (const place of document.querySelectorAll("[data-ago]")) {
    const seconds = Math.round((now - Date.parse(place.dateTime)) / 1000);
    if (seconds >= 0) show(place, seconds < 5 ? "just now" : `${span(seconds, 1)} ago`);
  }
  for (const place of document.querySelectorAll("[data-since]")) {
    const since = place.getAttribute("data-since") || place.dateTime;
    show(place, span(Math.max(0, Math.round((now - Date.parse(since)) / 1000))));
  }
}

function show(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

setInterval(tick, 1000);

// --- live -------------------------------------------------------------------------------------------------

const { live, project, id: shownId } = document.getElementById("main").dataset;
let source = null;
let retry = 0;
let wasLost = false;

function concerns(data) {
  if (live === "list") return true;
  return data.run_id === shownId || data.job_id === shownId;
}

function connect() {
  clearTimeout(retry);
  if (source || document.hidden || !live) return;
  // At first the events since the page was written; later the page is drawn anew instead.
  const query = new URLSearchParams();
  if (!wasLost) query.set("after", document.getElementById("main").dataset.event);
  // Of a project's page its events, also for those who see it and are not its members.
  if (project) query.set("project", project);
  source = new EventSource(`${api}/events?${query}`);
  source.onopen = () => {
    lost(false);
    // What happened while nothing listened is not in the events.
    if (wasLost) soon();
    wasLost = false;
  };
  source.onerror = () => {
    wasLost = true;
    lost(true);
    // By itself it tries again only after some errors.
    disconnect();
    retry = setTimeout(connect, TRY_AGAIN_MS);
  };
  const changed = (event) => {
    if (concerns(JSON.parse(event.data))) soon();
  };
  for (const name of ["message", "run", "node"]) source.addEventListener(name, changed);
}

function disconnect() {
  source?.close();
  source = null;
}

function lost(isLost) {
  const place = document.getElementById("connection");
  if (place.hidden === !isLost) return;
  place.hidden = !isLost;
  place.textContent = isLost ? "The connection to the service is lost. Trying again…" : "";
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    disconnect();
    clearTimeout(retry);
    wasLost = true;
  } else connect();
});
// A page that is left must not hold a connection, nor report that it broke.
window.addEventListener("pagehide", disconnect);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    wasLost = true;
    connect();
  }
});
connect();
