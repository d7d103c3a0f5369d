"use strict";
// What the edge tells of itself once a second, drawn. Whatever comes from workers is only ever text.

const SAMPLES = 300;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
let past5 = { at_unix: [], pools: [] };
let lastHeard = 0;

function el(tag, name, ...inside) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside.map((part) => (part instanceof Node ? part : String(part))));
  return node;
}

function drawn(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// ---- numbers ----

const count = (n) => n.toLocaleString("en-US").replaceAll(",", "\u202f");

function time(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${String(Math.floor(seconds % 60)).padStart(2, "0")}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}m`;
  return `${Math.floor(seconds / 86400)}d${String(Math.floor((seconds % 86400) / 3600)).padStart(2, "0")}h`;
}

function short(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1) return "0";
  if (us < 1000) return `${us}\u202fµs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 1 : 0)}\u202fms`;
  return `${(us / 1e6).toFixed(us < 1e7 ? 1 : 0)}\u202fs`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at++) bytes /= 1024;
  return `${at === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)}\u202f${units[at]}`;
}

// ---- history ----

// A stream begins with all that its process remembers, which after an upgrade is less than this page does, and goes on with one
// sample each. What is told again counts.
function remember(news) {
  if (news.at_unix.length === 0) return;
  const again = past5.at_unix.filter((at) => at >= news.at_unix[0]).length;
  const join = (list, items) => {
    list.splice(Math.max(0, list.length - again), again, ...items);
    list.splice(0, Math.max(0, list.length - SAMPLES));
  };
  join(past5.at_unix, news.at_unix);
  const before = new Map(past5.pools.map((pool) => [pool.name, pool]));
  past5.pools = news.pools.map((pool) => {
    const old = before.get(pool.name);
    if (!old) return pool;
    const samples = old.links.length;
    for (const column of ["links", "credits", "in_flight", "dispatched", "answered", "failed"]) join(old[column], pool[column]);
    const classes = new Map(old.classes.map((own) => [own.class, own]));
    for (const own of pool.classes) {
      if (!classes.has(own.class)) {
        const none = (value) => new Array(samples).fill(value);
        classes.set(own.class, { class: own.class, queued: none(0), wait_p50_us: none(null), wait_p99_us: none(null) });
      }
    }
    const fresh = new Map(pool.classes.map((own) => [own.class, own]));
    for (const own of classes.values()) {
      const now = fresh.get(own.class);
      const none = (value) => new Array(pool.links.length).fill(value);
      join(own.queued, now ? now.queued : none(0));
      join(own.wait_p50_us, now ? now.wait_p50_us : none(null));
      join(own.wait_p99_us, now ? now.wait_p99_us : none(null));
    }
    old.classes = [...classes.values()].sort((a, b) => a.class - b.class);
    return old;
  });
}

// ---- charts: 300 seconds wide, the newest at the right ----

function chart(kind) {
  return drawn("svg", { viewBox: `0 0 ${SAMPLES - 1} 100`, preserveAspectRatio: "none", class: kind, "aria-hidden": "true" });
}

// Where the last so many samples stand: by their time, for one may be late, and an upgrade takes a while.
function places(samples) {
  const times = past5.at_unix.slice(-samples);
  return (at) => SAMPLES - 1 - (times.at(-1) - times[at]);
}

function legend(classes) {
  const keys = classes.map((own) => el("i", `c${own.class}`, own.class));
  return keys.length > 1 ? el("span", "", "class", ...keys) : "";
}

function depths(classes) {
  const svg = chart("area");
  const samples = classes.length ? classes[0].queued.length : 0;
  const sums = new Array(samples).fill(0);
  for (const own of classes) own.queued.forEach((depth, at) => { sums[at] += depth; });
  const most = Math.max(1, ...sums);
  const below = new Array(samples).fill(0);
  const x = places(samples);
  const y = (depth) => (100 - (depth / most) * 96).toFixed(2);
  // The least urgent at the bottom: what is urgent stands on top of what waits for it.
  for (const own of [...classes].reverse()) {
    if (!own.queued.some((depth) => depth > 0)) continue;
    const under = below.map((depth, at) => `${x(at)},${y(depth)}`).reverse();
    own.queued.forEach((depth, at) => { below[at] += depth; });
    const over = below.map((depth, at) => `${x(at)},${y(depth)}`);
    svg.append(drawn("path", { d: `M${over.join("L")}L${under.join("L")}Z`, class: `c${own.class}` }));
  }
  const caption = el("figcaption", "", el("span", "", `queued, at most ${count(samples ? Math.max(...sums) : 0)} in 5 min`), legend(classes));
  return el("figure", "", caption, svg);
}

function waits(classes) {
  const svg = chart("lines");
  // From 10 µs to 100 s, each line ten times as long as the one below.
  const y = (us) => (98 - (Math.min(Math.max(Math.log10(Math.max(us, 1)) - 1, 0), 7) / 7) * 94).toFixed(2);
  for (const us of [1e3, 1e6]) svg.append(drawn("line", { x1: 0, x2: SAMPLES - 1, y1: y(us), y2: y(us) }));
  let longest = null;
  for (const own of classes) {
    const x = places(own.wait_p99_us.length);
    let path = "";
    let pen = "M";
    own.wait_p99_us.forEach((us, at) => {
      if (us === null) { pen = "M"; return; }
      longest = Math.max(longest ?? 0, us);
      path += `${pen}${x(at)},${y(us)}${pen === "M" ? `h.6` : ""}`;
      pen = "L";
    });
    if (path) svg.append(drawn("path", { d: path, class: `c${own.class}` }));
  }
  const caption = el("figcaption", "", el("span", "", `wait, p99, at most ${short(longest)} in 5 min`), el("span", "", "lines at 1 ms and 1 s"));
  return el("figure", "", caption, svg);
}

// ---- tables ----

function rows(id, all, nothing) {
  const body = byId(id).tBodies[0];
  if (all.length === 0) {
    const cell = el("td", "none", nothing);
    cell.colSpan = 20;
    body.replaceChildren(el("tr", "", cell));
    return;
  }
  body.replaceChildren(...all.map((cells) => el("tr", "", ...cells)));
}

const text = (value, name) => el("td", name ?? "", value);
const number = (value) => el("td", "n", value);

function showFindings(findings) {
  const shown = findings.map((finding) => el("p", finding.grade, el("b", "", finding.about), " ", el("span", "", finding.text)));
  byId("findings").replaceChildren(...(shown.length ? shown : [el("p", "good", el("span", "", "nothing is wrong"))]));
}

function showPools(pools) {
  const of = new Map(past5.pools.map((pool) => [pool.name, pool]));
  byId("pools").replaceChildren(...pools.map((pool) => {
    const past = of.get(pool.name);
    const pairs = [
      ["queued", count(pool.queued)], ["in flight", count(pool.in_flight)],
      ["links", count(pool.links)], ["credits", count(pool.credits)],
      ["sent /s", count(Math.round(pool.lately.dispatched_per_second))], ["5xx /s", count(Math.round(pool.lately.failed_per_second * 10) / 10)],
      ["wait p50", short(pool.lately.wait_p50_us)], ["wait p99", short(pool.lately.wait_p99_us)],
    ];
    const list = el("dl", "", ...pairs.flatMap(([name, value]) => [el("dt", "", name), el("dd", "", value)]));
    return el("article", "pool", el("div", "", el("h3", "", pool.name), list), depths(past ? past.classes : []), waits(past ? past.classes : []));
  }));
}

function showLinks(report, now) {
  const links = [...report.links].sort((a, b) => a.core - b.core || a.worker.localeCompare(b.worker) || a.since_unix - b.since_unix);
  byId("links-count").textContent = links.length < report.links_total ? `${links.length} of ${count(report.links_total)}` : count(links.length);
  rows("links", links.map((link) => {
    const labels = Object.entries(link.labels).map(([name, value]) => `${name}=${value}`).join(" ");
    const silent = link.silent_seconds > 0 ? time(link.silent_seconds) : "–";
    return [
      text(link.core), text(link.id), text(link.worker), text(link.worker_id || "–"), text(labels || "–", "wide"), text(link.address), text(link.protocol),
      text(link.pools.join(" "), "wide"), number(count(link.credits)), number(count(link.in_flight)),
      number(link.answer_ms === null ? "–" : short(Math.round(link.answer_ms * 1000))),
      el("td", link.mute ? "n bad" : "n", silent), number(time(Math.max(0, now - link.since_unix))),
    ];
  }), "no worker is linked");
}

function tally(id, total, lately, nothing) {
  const names = Object.keys(total ?? {}).filter((name) => total[name] > 0).sort((a, b) => total[b] - total[a]);
  rows(id, names.map((name) => {
    const cells = [text(name.replaceAll("_", " "))];
    if (lately) cells.push(number(count(lately[name] ?? 0)));
    return [...cells, number(count(total[name]))];
  }), nothing);
}

function showEdge(report, now) {
  const limits = report.limits;
  const bytes = limits.memory_max_bytes ? `${size(limits.resident_bytes)} of ${size(limits.memory_max_bytes)}` : size(report.process.resident_bytes);
  const reloads = report.counters.reloads ?? {};
  const pairs = [
    ["connections", `${count(limits.connections)} of ${count(limits.connections_max)}`],
    ["memory", bytes],
    ["descriptors", `${count(report.process.open_fds)} of ${count(report.process.max_fds)}`],
    ["cores", report.cores.length],
    ["configuration", report.generation],
    ["reloads", `${count(reloads.done ?? 0)} done, ${count(reloads.failed ?? 0)} failed`],
    ...report.leaving.map((own) => [`configuration ${own.generation} leaves`, `${count(own.connections)} connections, ${count(own.links)} links`]),
    ...report.certificates.map((own) => [own.file, `expires in ${time(Math.max(0, own.not_after_unix - now))}`]),
  ];
  rows("edge", pairs.map(([name, value]) => [text(name, "wide"), el("td", "n wide", value)]), "");
}

// ---- news ----

function show(news) {
  const report = news.report;
  const now = news.history.at_unix.at(-1) ?? Date.now() / 1000;
  remember(news.history);
  byId("about").textContent = `${report.version}, configuration ${report.generation}, up ${time(report.uptime_seconds)}, process ${report.pid}${report.draining ? ", draining" : ""}`;
  showFindings(report.findings);
  showPools(report.pools);
  showLinks(report, now);
  tally("refusals", report.counters.refusals, report.lately.refusals, "none");
  tally("requeues", report.counters.requeues, null, "none");
  showEdge(report, now);
}

function live(isOn, words) {
  byId("live").className = isOn ? "on" : "off";
  byId("live").textContent = words;
}

function listen() {
  const events = new EventSource("/events");
  events.onmessage = (event) => {
    lastHeard = Date.now();
    live(true, "live");
    show(JSON.parse(event.data));
  };
  events.onerror = () => {
    live(false, "the edge does not answer; trying again");
    // A browser gives up for good where the answer is no stream: too many of them, or a session that has ended.
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(async () => {
        const answer = await fetch("/events", { method: "HEAD" }).catch(() => null);
        if (answer && answer.status === 401) location.reload(); else listen();
      }, 3000);
    }
  };
}

setInterval(() => {
  if (lastHeard && Date.now() - lastHeard > 5000) live(false, `nothing heard for ${time((Date.now() - lastHeard) / 1000)}`);
}, 1000);
listen();
