"use strict";
const $ = id => document.getElementById(id);
const esc = text => String(text).replace(/[&<>"']/g, c => "&#" + c.charCodeAt(0) + ";");
const short = n => n >= 1e9 ? (n / 1e9).toFixed(1) + "G" : n >= 1e6 ? (n / 1e6).toFixed(1) + "M" : n >= 1e4 ? (n / 1e3).toFixed(1) + "k" : n > 0 && n < 10 && n % 1 ? n.toFixed(1) : String(Math.round(n));
const micros = us => us >= 1e6 ? (us / 1e6).toFixed(1) + " s" : us >= 1000 ? (us / 1000).toFixed(us >= 1e4 ? 0 : 1) + " ms" : us + " µs";
const span = s => s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 129600 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
const clock = t => new Date(t * 1000).toLocaleTimeString();
const colour = n => "var(--c" + n % 8 + ")";
const LOOKS = { up: "good", cold: "warn", entering: "warn", waiting: "warn", connecting: "warn", down: "bad" };
const SAYS = { up: "up", cold: "cold: it is being filled", entering: "being made safe", waiting: "waiting: may be stale, not used", connecting: "connecting", down: "down" };

function topology(s) {
  const primaries = s.servers.filter(v => v.role === "primary"), backups = s.servers.filter(v => v.role === "backup");
  const rows = Math.max(primaries.length, backups.length, 1), step = 66, height = rows * step + 8, narrow = backups.length === 0;
  const wide = narrow ? 700 : 960, middle = height / 2;
  const y = (n, of) => middle + (n - (of - 1) / 2) * step;
  let wires = "", boxes = "";
  const box = (x, cy, w, look, title, line) => {
    boxes += `<g><rect class="box ${look}" x="${x}" y="${cy - 25}" width="${w}" height="50" rx="8"/>` +
      `<text x="${x + 12}" y="${cy - 4}">${esc(title)}</text><text class="dim" x="${x + 12}" y="${cy + 14}">${esc(line)}</text></g>`;
  };
  const wire = (x1, y1, x2, y2, bad) => {
    const half = (x1 + x2) / 2;
    wires += `<path class="wire ${bad ? "bad" : ""}" d="M${x1} ${y1} C${half} ${y1} ${half} ${y2} ${x2} ${y2}"/>`;
  };
  box(4, middle, 128, "", "clients", short(s.connections.now) + " connected");
  const here = s.addresses.filter(a => a.here).map(a => a.address).join(", ");
  box(196, middle, 160, s.healthy ? "good" : "bad", "this proxy", here ? here : s.active ? "serving" : "standing by");
  wire(132, middle, 196, middle, false);
  const column = (list, x, from) => list.forEach((v, n) => {
    const cy = y(n, list.length);
    box(x, cy, 224, LOOKS[v.state] || "warn", v.name, (SAYS[v.state] || v.state) + ", " + span(v.seconds_in_state));
    from(cy, v);
  });
  column(primaries, 420, (cy, v) => wire(356, middle, 420, cy, v.state === "down"));
  column(backups, 712, (cy, v) => primaries.forEach((p, n) => wire(644, y(n, primaries.length), 712, cy, v.state === "down" || p.state === "down")));
  const svg = $("topology");
  svg.setAttribute("viewBox", `0 0 ${wide} ${height}`);
  svg.style.minWidth = wide * 0.7 + "px";
  svg.innerHTML = wires + boxes;
}

function chart(id, times, series, options) {
  const w = 520, h = 150, left = 52, bottom = 20, top = 8;
  const all = series.flatMap(v => v.values).filter(v => v !== null && v !== undefined);
  let most = options.most || Math.max(1, ...all), least = 0;
  const log = options.log;
  if (log) { least = Math.min(...all.filter(v => v > 0), most); least = Math.max(1, least / 2); }
  else if (!options.most) { const unit = 10 ** Math.floor(Math.log10(most)); most = Math.ceil(most / unit) * unit; }
  const t0 = times[0], t1 = times[times.length - 1];
  const x = t => left + (t1 > t0 ? (t - t0) / (t1 - t0) : 1) * (w - left - 8);
  const y = v => {
    const part = log ? Math.log(Math.max(v, least) / least) / Math.log(most / least || 2) : v / most;
    return top + (1 - Math.min(1, Math.max(0, part || 0))) * (h - top - bottom);
  };
  let out = "";
  const marks = log ? [least, Math.sqrt(least * most), most] : [0, most / 2, most];
  for (const mark of marks) {
    out += `<line class="axis" x1="${left}" x2="${w - 8}" y1="${y(mark)}" y2="${y(mark)}"/>` +
      `<text class="dim" x="${left - 6}" y="${y(mark) + 4}" text-anchor="end">${options.say(mark)}</text>`;
  }
  if (times.length > 1) {
    out += `<text class="dim" x="${left}" y="${h - 4}">${clock(t0)}</text><text class="dim" x="${w - 8}" y="${h - 4}" text-anchor="end">${clock(t1)}</text>`;
  }
  series.forEach((one, n) => {
    let path = "", pen = "M";
    one.values.forEach((v, i) => {
      if (v === null || v === undefined || (log && v <= 0)) { pen = "M"; return; }
      path += `${pen}${x(times[i]).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = "L";
    });
    out += `<path d="${path}" fill="none" stroke="${colour(n)}" stroke-width="1.8"/>`;
  });
  const svg = $(id);
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.innerHTML = out;
}

const legend = (id, names) => $(id).innerHTML = names.map((name, n) => `<span><i class="k${n % 8}"></i>${esc(name)}</span>`).join("");

function show(all) {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const s = all.pools.find(p => p.name === wanted) || all.pools[0];
  if (!s) return;
  const history = s.history || { time: [], requests_per_second: [], hit_ratio: [], p50_us: [], p99_us: [], server_requests_per_second: [] };
  $("pools").innerHTML = all.pools.length < 2 ? "" : all.pools.map(p =>
    `<a class="pill ${p.healthy ? p.servers.every(v => v.state === "up") ? "good" : "warn" : "bad"}" href="#${encodeURIComponent(p.name)}"${p === s ? ' aria-current="page"' : ""}>${esc(p.name)}</a>`).join(" ");
  const down = s.servers.filter(v => v.state === "down").length;
  const health = $("health");
  health.textContent = !s.healthy ? "some keys have no live copy: " + s.without_copy.join(", ")
    : down ? `all keys are served, ${down} of ${s.servers.length} servers down` : s.servers.every(v => v.state === "up") ? "all is well" : "all keys are served, copies are being made whole";
  health.className = "pill " + (!s.healthy ? "bad" : s.servers.every(v => v.state === "up") ? "good" : "warn");
  const ill = all.pools.some(p => !p.healthy), hurt = all.pools.some(p => p.servers.some(v => v.state === "down"));
  document.title = (ill ? "!! " : hurt ? "! " : "") + "magent";
  $("addresses").innerHTML = s.addresses.filter(a => !/^127\.|^::1$/.test(a.address)).map(a =>
    `<span class="pill ${a.here ? "good" : "warn"}">${esc(a.address)} is ${a.here ? "here" : "not here"}, ${span(a.seconds)}</span>`).join(" ");
  $("about").textContent = `${all.version}, up ${span(all.uptime)}, ${s.active ? "serving" : "not asked at present"}`;
  const hits = s.keys.hits + s.keys.misses;
  const last = history.requests_per_second;
  const figures = [
    ["requests per second", last.length ? short(last[last.length - 1]) : "–"],
    ["hit ratio", hits ? (100 * s.keys.hits / hits).toFixed(1) + " %" : "–"],
    ["client connections", short(s.connections.now)],
    ["keys that no copy could give", short(s.keys.failed)],
    ["writes that failed", short(s.writes.failed)],
    ["copies that disagreed", short(s.copies.disagreements)],
    ["buffered", short(s.memory.buffered) + "B"],
  ];
  $("figures").innerHTML = figures.map(([name, value]) => `<div class="figure"><b>${value}</b><span class="dim">${name}</span></div>`).join("");
  topology(s);
  $("resync").hidden = !s.resync;
  if (s.resync) {
    const part = s.resync.keys_listed ? s.resync.keys_done / s.resync.keys_listed : 0;
    $("resync-text").textContent = `${s.resync.server}: ${short(s.resync.keys_done)} of ${short(s.resync.keys_listed)} keys, ${short(s.resync.keys_per_second)} per second, ${span(s.resync.seconds_left)} left`;
    $("resync-bar").style.width = (100 * part).toFixed(1) + "%";
  }
  const names = s.servers.map(v => v.name);
  chart("chart-requests", history.time, [{ values: history.requests_per_second }], { say: short });
  chart("chart-hits", history.time, [{ values: history.hit_ratio }], { most: 1, say: v => Math.round(v * 100) + " %" });
  chart("chart-latency", history.time, [{ values: history.p50_us }, { values: history.p99_us }], { log: true, say: v => micros(Math.round(v)) });
  legend("legend-latency", ["half are faster", "99 % are faster"]);
  chart("chart-servers", history.time, names.map((_, n) => ({ values: history.server_requests_per_second.map(row => row[n]) })), { say: short });
  legend("legend-servers", names);
  $("servers").innerHTML = "<tr><th>server</th><th>role</th><th>state</th><th>since</th><th>requests</th><th>in flight</th><th>p50</th><th>p99</th><th>timeouts</th><th>lost</th><th>journal</th></tr>" +
    s.servers.map(v => `<tr data-server="${esc(v.name)}" data-state="${esc(v.state)}"><td class="mono">${esc(v.name)}</td><td>${v.role}</td><td><span class="pill ${LOOKS[v.state] || "warn"}">${esc(v.state)}</span></td>` +
      `<td>${span(v.seconds_in_state)}</td><td>${short(v.requests)}</td><td>${v.in_flight}</td><td>${v.p50_us ? micros(v.p50_us) : "–"}</td><td>${v.p99_us ? micros(v.p99_us) : "–"}</td>` +
      `<td>${short(v.timeouts)}</td><td>${short(Object.values(v.lost).reduce((a, b) => a + b, 0))}</td><td>${short(v.journal_keys)}</td></tr>`).join("");
  $("events").innerHTML = s.events.slice().reverse().map(e =>
    `<li><span class="dim mono">${clock(e.time)}</span><b>${esc(e.event)}</b><span>${esc(e.subject ? e.subject + ": " : "")}${esc(e.detail)}</span>${e.repeats ? `<span class="dim">and ${e.repeats} times more, last ${clock(e.last)}</span>` : ""}</li>`).join("") || `<li class="dim">nothing has happened yet</li>`;
}

let data = null;
addEventListener("hashchange", () => data && show(data));
async function turn() {
  try {
    const answer = await fetch("stats.json", { signal: AbortSignal.timeout(3000) });
    if (!answer.ok) throw new Error(answer.status);
    data = await answer.json();
    show(data);
    document.body.classList.remove("lost");
  } catch (error) {
    document.body.classList.add("lost");
    $("health").className = "pill bad";
    $("health").textContent = "no answer";
  }
  setTimeout(turn, document.hidden ? 5000 : 1000);
}
turn();
