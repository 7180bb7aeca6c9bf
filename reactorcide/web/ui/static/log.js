// The log of a job: virtual rows over pages of lines, which are fetched when they come into view.
// What a job printed enters the page as text alone.

import { LineParser } from "./ansi.js";

const MAX_PAGES = 40; // kept in memory
const MAX_PAGE_BYTES = 4 << 20;
const MAX_LINE_CHARS = 5000;
const ROW_PX = 20;
const MAX_SCROLL_PX = 6_000_000; // browsers draw higher elements wrongly
const PLAIN_LINES = 2000; // with fewer lines all of them are in the document
const OVERSCAN = 12;
// The log is asked for again and again, by short requests. A stream of it would be a second connection of the page,
// would hold one of the few that the service has for followers, and could not skip what is not looked at.
const BUSY_POLL_MS = 300;
const IDLE_POLL_MS = 1500;
const LOST_POLL_MS = 2000;
const MAX_SEARCH_CALLS = 30; // each of at most two seconds
const MARK_EDGE = 3; // lines shown above one that is jumped to

const view = document.getElementById("log-view");
const api = document.documentElement.dataset.api;
const PAGE_LINES = Number(view?.dataset.pageLines);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(label, title, act) {
  const made = element("button", "button", label);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", act);
  return made;
}

class Log {
  constructor(root) {
    this.root = root;
    this.url = `${api}/jobs/${root.dataset.job}/logs`;
    this.pages = new Map(); // number -> {lines, ends: parser state after it}, least recently used first
    this.loading = new Map();
    this.total = 0;
    this.isWhole = true; // the last line is complete
    this.epoch = 0; // grows when everything has to be fetched again
    this.follows = root.dataset.over !== "true" && !location.hash.startsWith("#L");
    this.seenTotal = 0;
    this.marked = null;
    this.hits = null;
    this.hitAt = -1;
    this.wasLost = false;
    this.pauseMs = BUSY_POLL_MS;
    this.build();
  }

  get isOver() {
    return this.root.dataset.over === "true";
  }

  // --- what is on the page ----------------------------------------------------------------------------

  build() {
    this.query = element("input", "log-search");
    Object.assign(this.query, { type: "search", placeholder: "Search the log", maxLength: 1000, autocomplete: "off" });
    this.query.setAttribute("aria-label", "Search the log");
    this.query.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (this.hits?.text === this.query.value) this.step(event.shiftKey ? -1 : 1);
      else this.search(this.query.value);
    });
    this.query.addEventListener("input", () => {
      if (!this.query.value) this.setHits(null);
    });
    this.status = element("span", "log-status");
    this.status.setAttribute("role", "status");
    const previous = button("↑", "Previous match", () => this.step(-1));
    const next = button("↓", "Next match", () => this.step(1));
    previous.setAttribute("aria-label", "Previous match");
    next.setAttribute("aria-label", "Next match");
    const firstError = button("First error", "Go to the first line that looks like an error", () => this.firstError());
    this.times = this.toggle("Times", false, () => this.again());
    this.wrap = this.toggle("Wrap", false, () => {
      this.pane.classList.toggle("wrapped", this.wrap.checked);
      this.layout(true);
    });
    this.stream = element("select");
    this.stream.setAttribute("aria-label", "Streams");
    for (const [value, label] of [["", "all output"], ["stdout", "stdout"], ["stderr", "stderr"]]) {
      const option = element("option", "", label);
      option.value = value;
      this.stream.append(option);
    }
    this.stream.addEventListener("change", () => {
      this.setHits(null);
      this.again();
    });
    const raw = element("a", "", "Raw");
    const download = element("a", "", "Download");
    this.links = [raw, download];
    this.nameAttempt();
    const bar = element("div", "log-bar");
    bar.append(this.query, previous, next, this.status, element("span", "log-gap"), firstError, this.stream);
    bar.append(this.times.parentElement, this.wrap.parentElement, raw, download);

    this.pane = element("div", "log-pane");
    this.pane.tabIndex = 0;
    this.pane.setAttribute("role", "region");
    this.pane.setAttribute("aria-label", "Lines of the log");
    this.space = element("div", "log-space");
    this.rows = element("div", "log-rows");
    this.space.append(this.rows);
    this.pane.append(this.space);
    this.newer = button("", "Go to the end, and follow", () => this.toEnd());
    this.newer.className = "button main log-newer";
    this.newer.hidden = true;
    this.root.replaceChildren(bar, this.pane, this.newer);
    this.pane.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.pane.addEventListener("keydown", (event) => this.key(event));
    this.rows.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.layout(true)).observe(this.pane);
    window.addEventListener("hashchange", () => this.fromHash());
    document.addEventListener("visibilitychange", () => this.schedule(0));
    document.addEventListener("drawn", () => {
      if (this.attempt === this.root.dataset.attempt) return this.schedule(0);
      // The job is tried again, and another log begins.
      this.nameAttempt();
      this.setHits(null);
      this.marked = null;
      this.follows = true;
      return this.again(0);
    });
  }

  nameAttempt() {
    this.attempt = this.root.dataset.attempt;
    const [raw, download] = this.links;
    raw.href = download.href = `${this.url}?attempt=${this.attempt}`;
    download.download = `${this.root.dataset.job}-${this.attempt}.log`;
  }

  toggle(label, checked, act) {
    const box = element("input");
    box.type = "checkbox";
    box.checked = checked;
    box.addEventListener("change", act);
    const made = element("label", "check");
    made.append(box, label);
    return box;
  }

  // --- fetching ---------------------------------------------------------------------------------------

  async fetchLines(fromLine, lines) {
    const query = new URLSearchParams({ attempt: this.attempt, from_line: fromLine, lines });
    if (this.times.checked) query.set("timestamps", "true");
    if (this.stream.value) query.set("stream", this.stream.value);
    const response = await fetch(`${this.url}?${query}`, { headers: { Accept: "text/plain" } });
    if (response.status === 404) return { text: "", total: 0 };
    if (!response.ok) throw new Error(`the service answered ${response.status}`);
    const total = Number(response.headers.get("X-Log-Lines"));
    return { text: await bounded(response), total };
  }

  /** Fetch a page; its lines are parsed when they are shown, for colours go on from the page before. */
  load(number) {
    const known = this.loading.get(number);
    if (known) return known;
    const epoch = this.epoch;
    const work = this.fetchLines(number * PAGE_LINES + 1, PAGE_LINES)
      .then(({ text, total }) => {
        if (epoch !== this.epoch) return;
        this.keep(number, text);
        this.grow(total);
      })
      .finally(() => this.loading.delete(number));
    this.loading.set(number, work);
    return work;
  }

  keep(number, text) {
    const lines = text.split("\n");
    const isWhole = lines.at(-1) === "";
    if (isWhole) lines.pop();
    this.pages.delete(number);
    this.pages.set(number, { lines, isWhole, parsed: null, ends: null });
    // Colours go on from page to page.
    for (let next = number + 1; this.pages.get(next)?.parsed; next += 1) this.pages.get(next).parsed = null;
    for (const old of this.pages.keys()) {
      if (this.pages.size <= MAX_PAGES) break;
      this.pages.delete(old);
    }
  }

  grow(total) {
    if (total <= this.total) return;
    this.total = total;
    this.layout(false);
  }

  page(number) {
    const page = this.pages.get(number);
    if (!page) return null;
    this.pages.delete(number);
    this.pages.set(number, page);
    if (!page.parsed) {
      // After a jump the colours are those of the page before, which is fetched with this one, and of no more.
      const before = this.pages.get(number - 1);
      if (before && !before.parsed) this.page(number - 1);
      const parser = new LineParser(before?.ends);
      const hasTimes = this.times.checked;
      page.parsed = page.lines.map((line) => {
        const time = hasTimes ? line.slice(0, line.indexOf(" ")) : "";
        const text = hasTimes ? line.slice(time.length + 1) : line;
        const isCut = text.length > MAX_LINE_CHARS;
        return { time, isCut, parts: parser.parse(isCut ? text.slice(0, MAX_LINE_CHARS) : text) };
      });
      page.ends = parser.state;
    }
    return page;
  }

  again(top = this.topLine()) {
    this.epoch += 1;
    this.pages.clear();
    this.loading.clear();
    this.total = 0;
    this.seenTotal = 0;
    this.rows.replaceChildren();
    this.start(top);
  }

  /** Show the log from a line on, counted from 0, or its end; the page itself may tell how many lines there are. */
  async start(line, known) {
    const epoch = this.epoch;
    try {
      const total = known || (await this.fetchLines(1, 0)).total;
      if (epoch !== this.epoch) return;
      this.total = total;
      this.layout(true);
      if (this.marked) this.show(this.marked[0]);
      else if (this.follows || (line === 0 && "atEnd" in this.root.dataset)) this.toEnd();
      else if (line) this.show(line + MARK_EDGE + 1);
      this.draw();
    } catch (error) {
      this.lost(error);
    }
    this.schedule(BUSY_POLL_MS);
  }

  // --- following --------------------------------------------------------------------------------------

  schedule(ms) {
    clearTimeout(this.timer);
    if (document.hidden) return;
    this.timer = setTimeout(() => this.poll(), ms);
  }

  /** Fetch what came after the last line that is known; nothing is asked for once the attempt is over. */
  async poll() {
    const wasOver = this.isOver;
    const epoch = this.epoch;
    const last = Math.max(0, Math.floor((this.total - 1) / PAGE_LINES));
    const page = this.pages.get(last);
    // A line that had no end yet is fetched again.
    const whole = page ? page.lines.length - (page.isWhole ? 0 : 1) : 0;
    try {
      const { text, total } = await this.fetchLines(last * PAGE_LINES + whole + 1, PAGE_LINES - whole || 1);
      if (epoch !== this.epoch) return;
      this.lost(null);
      if (text) {
        if (whole === PAGE_LINES) this.keep(last + 1, text);
        else this.keep(last, [...(page?.lines.slice(0, whole) ?? []), text].join("\n"));
        this.total = Math.max(this.total, total);
        this.layout(true);
        if (this.follows) this.toEnd();
      }
      if (wasOver) return;
      this.pauseMs = text ? BUSY_POLL_MS : Math.min(this.pauseMs * 1.5, IDLE_POLL_MS);
      this.schedule(this.pauseMs);
    } catch (error) {
      this.lost(error);
      this.schedule(LOST_POLL_MS);
    }
  }

  lost(error) {
    if (!error && !this.wasLost) return;
    this.wasLost = error !== null;
    this.say(error ? "The log cannot be fetched; trying again…" : "");
  }

  say(text) {
    this.status.textContent = text;
  }

  // --- rows -------------------------------------------------------------------------------------------

  get isPlain() {
    return this.total <= PLAIN_LINES;
  }

  get visible() {
    return Math.max(1, Math.ceil(this.pane.clientHeight / ROW_PX));
  }

  get spacePx() {
    return Math.min(MAX_SCROLL_PX, this.total * ROW_PX);
  }

  /** The first line in view, from 0; with scaled scrolling it is not the scroll position over the row's height. */
  topLine() {
    const most = Math.max(0, this.total * ROW_PX - this.pane.clientHeight);
    const scrollable = Math.max(1, this.spacePx - this.pane.clientHeight);
    return (Math.min(1, this.pane.scrollTop / scrollable) * most) / ROW_PX;
  }

  scrollTo(line) {
    if (this.isPlain) {
      this.draw();
      const row = this.rows.children[Math.max(0, Math.floor(line))];
      if (row) this.pane.scrollTop = row.offsetTop;
      return;
    }
    const most = Math.max(1, this.total * ROW_PX - this.pane.clientHeight);
    const scrollable = Math.max(0, this.spacePx - this.pane.clientHeight);
    this.pane.scrollTop = (Math.min(most, Math.max(0, line * ROW_PX)) / most) * scrollable;
  }

  layout(isNew) {
    this.space.classList.toggle("plain", this.isPlain);
    this.space.style.height = this.isPlain ? "" : `${this.spacePx}px`;
    this.pane.style.setProperty("--digits", String(Math.max(3, String(this.total).length)));
    if (isNew) this.seen();
    this.request();
  }

  request() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const plain = this.isPlain;
    const top = plain ? 0 : this.topLine();
    const first = plain ? 0 : Math.max(0, Math.floor(top) - (this.wrap.checked ? 0 : OVERSCAN));
    const end = plain ? this.total : Math.min(this.total, Math.ceil(top) + this.visible + OVERSCAN);
    const known = new Map();
    for (const row of this.rows.children) known.set(row.line, row);
    const rows = [];
    for (let line = first; line < end; line += 1) {
      const number = Math.floor(line / PAGE_LINES);
      const page = this.page(number);
      if (!page) this.load(number).then(() => this.request(), (error) => this.lost(error));
      const content = page?.parsed[line % PAGE_LINES];
      const row = known.get(line);
      rows.push(row && row.content === content ? row : this.row(line, content, page));
    }
    sync(this.rows, rows);
    // Where rows would be with a line for each, drawn from the first that is in the document.
    this.rows.style.transform = plain ? "" : `translateY(${this.pane.scrollTop - (top - first) * ROW_PX}px)`;
    if (!plain) this.prefetch(first, end);
  }

  prefetch(first, end) {
    const before = Math.floor(first / PAGE_LINES) - 1;
    // The page before tells which colours go on, and both are probably next.
    for (const number of [before, Math.floor(end / PAGE_LINES) + 1])
      if (number >= 0 && number * PAGE_LINES < this.total && !this.pages.has(number))
        this.load(number).then(() => this.request(), () => {});
  }

  row(line, content, page) {
    const row = element("div", "line");
    row.line = line;
    row.content = content;
    const number = element("a", "n", String(line + 1));
    number.href = `#L${line + 1}`;
    row.append(number);
    const text = element("span", "x");
    if (content) {
      if (content.time) row.append(element("time", "t", content.time.slice(11, 23)));
      for (const { text: part, classes, colour, background } of content.parts) {
        if (!classes && !colour && !background) {
          text.append(part);
          continue;
        }
        const span = element("span", classes, part);
        if (colour) span.style.color = colour;
        if (background) span.style.backgroundColor = background;
        text.append(span);
      }
      if (content.isCut) text.append(element("em", "cut", " … this line is longer; Raw has all of it"));
    } else if (page) text.append(element("em", "cut", "… not shown, the lines before it are too long; Raw has it"));
    row.append(text);
    this.decorate(row);
    return row;
  }

  decorate(row) {
    const number = row.line + 1;
    row.classList.toggle("marked", Boolean(this.marked && number >= this.marked[0] && number <= this.marked[1]));
    row.classList.toggle("hit", Boolean(this.hits?.lines.has(number)));
    row.classList.toggle("now", this.hits?.order[this.hitAt] === number);
  }

  redecorate() {
    for (const row of this.rows.children) this.decorate(row);
  }

  // --- moving -----------------------------------------------------------------------------------------

  scrolled() {
    const left = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight;
    const atEnd = left < ROW_PX;
    if (this.pane.scrollTop < this.lastTop - 1 && !atEnd) this.follows = false;
    else if (atEnd && !this.isOver) this.follows = true;
    this.lastTop = this.pane.scrollTop;
    if (!this.isPlain) this.request();
    this.seen();
  }

  /** Say how many lines came since following stopped. */
  seen() {
    if (this.follows || this.isOver || !this.seenTotal) this.seenTotal = this.total;
    const fresh = this.total - this.seenTotal;
    this.newer.hidden = fresh <= 0;
    this.newer.textContent = `${fresh} new ${fresh === 1 ? "line" : "lines"} ↓`;
  }

  toEnd() {
    this.follows = !this.isOver;
    this.draw();
    this.pane.scrollTop = this.pane.scrollHeight;
    this.lastTop = this.pane.scrollTop;
    this.seen();
    this.request();
  }

  show(number) {
    this.follows = false;
    const at = Math.max(0, number - 1 - MARK_EDGE);
    if (this.isPlain && !this.rows.children.length) this.draw();
    this.scrollTo(at);
    this.lastTop = this.pane.scrollTop;
    this.request();
  }

  key(event) {
    if (event.target !== this.pane || event.ctrlKey || event.metaKey || event.altKey) return;
    const line = this.topLine();
    const moves = {
      ArrowDown: line + 1,
      ArrowUp: line - 1,
      PageDown: line + this.visible - 2,
      PageUp: line - this.visible + 2,
    };
    if (event.key === "End") this.toEnd();
    else if (event.key === "Home") this.pane.scrollTop = 0;
    else if (!this.isPlain && event.key in moves) this.scrollTo(moves[event.key]);
    else return;
    event.preventDefault();
  }

  clicked(event) {
    const link = event.target.closest("a.n");
    if (!link) return;
    event.preventDefault();
    const number = link.parentElement.line + 1;
    const from = event.shiftKey && this.marked ? this.marked[0] : number;
    this.marked = [Math.min(from, number), Math.max(from, number)];
    this.follows = false;
    history.replaceState(null, "", `#L${this.marked[0]}${from === number ? "" : `-L${this.marked[1]}`}`);
    this.redecorate();
  }

  fromHash() {
    const match = /^#L(\d{1,12})(?:-L(\d{1,12}))?$/.exec(location.hash);
    if (!match) return;
    const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
    this.marked = [Math.min(from, to), Math.max(from, to)];
    this.follows = false;
    if (this.total) this.show(this.marked[0]);
    this.redecorate();
    this.root.scrollIntoView({ block: "nearest" });
  }

  // --- searching --------------------------------------------------------------------------------------

  async find(query, limit) {
    const matches = [];
    let next = 1;
    for (let calls = 0; next !== null && calls < MAX_SEARCH_CALLS && matches.length < limit; calls += 1) {
      const parameters = new URLSearchParams({ attempt: this.attempt, from_line: next, limit, ...query });
      if (this.stream.value) parameters.set("stream", this.stream.value);
      const response = await fetch(`${this.url}/search?${parameters}`);
      const answer = await response.json();
      if (!response.ok) throw new Error(answer.message);
      matches.push(...answer.matches);
      next = answer.next_line;
    }
    return { lines: matches.map((match) => match.line), isAll: next === null };
  }

  async search(text) {
    if (!text) return this.setHits(null);
    this.say("Searching…");
    try {
      const { lines, isAll } = await this.find({ text }, 1000);
      if (this.query.value !== text) return undefined;
      this.setHits({ text, order: lines, lines: new Set(lines), isAll });
      if (!lines.length) return this.say("No match");
      const top = this.topLine() + 1;
      this.hitAt = Math.max(0, lines.findIndex((line) => line >= top)) - 1;
      return this.step(1);
    } catch (error) {
      return this.say(error.message);
    }
  }

  step(by) {
    const count = this.hits?.order.length;
    if (!count) return;
    this.hitAt = (this.hitAt + by + count) % count;
    this.say(`${this.hitAt + 1} of ${count}${this.hits.isAll ? "" : " or more"}`);
    this.show(this.hits.order[this.hitAt]);
    this.redecorate();
  }

  setHits(hits) {
    this.hits = hits;
    this.hitAt = -1;
    this.say("");
    this.redecorate();
  }

  async firstError() {
    this.say("Searching…");
    try {
      const { lines } = await this.find({}, 1);
      if (!lines.length) return this.say("No line looks like an error");
      this.say("");
      location.hash = `#L${lines[0]}`;
      return this.fromHash();
    } catch (error) {
      return this.say(error.message);
    }
  }
}

/** The text of an answer, or as much of it as may be in memory. */
async function bounded(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.length;
    text += decoder.decode(value, { stream: true });
    if (bytes > MAX_PAGE_BYTES) {
      await reader.cancel();
      return text;
    }
  }
}

/** Make `rows` the children of `parent`, in order, and move as few of them as possible. */
function sync(parent, rows) {
  const wanted = new Set(rows);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstChild;
  for (const row of rows) {
    if (row === at) at = at.nextSibling;
    else parent.insertBefore(row, at);
  }
}

if (view) {
  const log = new Log(view);
  log.fromHash();
  log.start(0, Number(view.dataset.lines));
}
