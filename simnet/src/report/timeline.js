// Draws one run. The data is in #data; nothing is fetched. Times are microseconds of the run.
"use strict";
(() => {
  const root = document.documentElement;
  let errors = 0;
  window.addEventListener("error", () => { root.dataset.errors = ++errors; });
  root.dataset.errors = 0;

  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { report, messages } = data;
  const END = Math.max(data.end, 1000);

  // Most things of each kind that are drawn at once: what a browser draws in a few milliseconds. The corner says how many
  // there are.
  const MESSAGES_DRAWN = 1200, CALLS_DRAWN = 1500, TINTS_DRAWN = 2500, FAULTS_DRAWN = 600;
  const FAULT_ROWS = 8, SHORTEST_VIEW = 2000;

  const KINDS = [
    { id: "calls", label: "Calls", color: "call", of: ["call", "answer"], on: true },
    { id: "gossip", label: "Gossip", color: "gossip", of: ["gossip"], on: true },
    { id: "sync", label: "Anti-entropy", color: "sync", of: ["adverts", "reconcile"], on: true },
    { id: "blobs", label: "Blobs", color: "blobs", of: ["blobs"], on: true },
    { id: "wire", label: "Connections", color: "wire", of: ["admission", "dial", "close"], on: true },
    { id: "odd", label: "Malformed", color: "odd", of: ["malformed"], on: true },
    { id: "ping", label: "Pings", color: "ping", of: ["ping"], on: false },
  ];
  const groupOf = data.kinds.map((kind) => KINDS.findIndex((group) => group.of.includes(kind)));

  const esc = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const word = (text) => String(text).replace(/_/g, " ");
  const many = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
  const seconds = (us, digits = 3) => `${(us / 1e6).toFixed(digits)} s`;
  const took = (us) => us < 1000 ? `${us} µs` : us < 1e6 ? `${(us / 1000).toFixed(1)} ms` : seconds(us, 2);
  const clamp = (n, low, high) => Math.min(Math.max(n, low), high);
  const name = (lane) => data.nodes[lane].name;
  const names = (lanes, count) => {
    const shown = lanes.slice(0, 6).map(name).join(", ");
    return count > 6 || lanes.length < count ? `${shown}${shown ? " and " : ""}${count - Math.min(6, lanes.length)} more` : shown;
  };

  // ---- What is on which lane, worked out once.
  const nodeOf = new Map(data.nodes.map((node, lane) => [node.name, lane]));
  const violations = report.violations.map((v, i) => ({ ...v, i, at: v.at_ms * 1000, lane: nodeOf.get(v.node) }));
  const faults = data.faults.map((f, i) => ({ ...f, i, until: f.end ?? END, row: 0 }));
  const calls = data.calls.map((c, i) => ({ ...c, i, until: c.end ?? END, word: c.outcome === null ? "running" : data.outcomes[c.outcome] }));
  const order = { violation: violations, fault: faults, call: calls };

  const rows = [];
  const ROW = 19, GROUP = 30, TRACK = 19;
  let height = 0;
  const faultRows = (() => {
    const ends = [];
    for (const fault of faults) {
      let row = ends.findIndex((end) => end <= fault.begin);
      if (row < 0) row = ends.length < FAULT_ROWS ? ends.length : ends.indexOf(Math.min(...ends));
      ends[row] = Math.max(ends[row] ?? 0, fault.until);
      fault.row = row;
    }
    return ends.length;
  })();
  if (faultRows) {
    rows.push({ kind: "group", label: "Faults", note: many(faults.length, "fault"), y: height });
    height += GROUP + faultRows * TRACK + 4;
  }
  const laneY = [];
  let site = null;
  data.nodes.forEach((node, lane) => {
    if (node.site !== site) {
      site = node.site;
      const about = data.sites.find((one) => one.name === site) ?? { places: [] };
      const places = about.places.length > 4 ? `${about.places.length} countries` : about.places.join(" ");
      rows.push({ kind: "group", label: site, note: [places, node.org].filter(Boolean).join(" · "), y: height });
      height += GROUP;
    }
    rows.push({ kind: "node", lane, y: height });
    laneY[lane] = height + ROW / 2;
    height += ROW;
  });
  height += 10;
  const trackY = (fault) => GROUP + fault.row * TRACK;

  const states = (() => {
    const spans = [], now = data.nodes.map(() => ({ state: "down", from: 0 }));
    const close = (lane, at) => { if (now[lane].state !== "up") spans.push({ lane, state: now[lane].state, from: now[lane].from, to: at }); };
    for (const [at, lane, state] of data.turns) { close(lane, at); now[lane] = { state, from: at }; }
    data.nodes.forEach((_, lane) => close(lane, END));
    return spans;
  })();

  // ---- What people look at.
  const view = { from: 0, to: END };
  let chosen = null, queued = false;
  const fromHash = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const from = Number(wanted.get("from") ?? 0) * 1000, to = Number(wanted.get("to") ?? END / 1000) * 1000;
    if (to > from) setView(from, to);
    const [kind, i] = (wanted.get("show") ?? "").split(":");
    if (kind === "message" ? messages.at[i] !== undefined : order[kind]?.[i]) choose({ kind, i: Number(i) });
  };
  const keepHash = () => {
    const hash = new URLSearchParams({ from: Math.round(view.from / 1000), to: Math.round(view.to / 1000) });
    if (chosen) hash.set("show", `${chosen.kind}:${chosen.i}`);
    // A page in a sandbox may keep no address; it works all the same.
    try { history.replaceState(null, "", `#${hash}`); } catch { /* see above */ }
  };
  function setView(from, to) {
    const width = clamp(to - from, SHORTEST_VIEW, END);
    view.from = clamp(from, 0, END - width);
    view.to = view.from + width;
    redraw();
  }
  const zoom = (factor, around = (view.from + view.to) / 2) =>
    setView(around - (around - view.from) * factor, around + (view.to - around) * factor);
  const pan = (share) => { const by = (view.to - view.from) * share; setView(view.from + by, view.to + by); };
  function choose(what) { chosen = what; redraw(); tell(); }
  function redraw() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; draw(); });
  }

  // ---- Drawing.
  const lanes = $("lanes"), axis = $("axis"), overview = $("overview"), timeline = $("timeline");
  const inView = (from, to) => to >= view.from && from <= view.to;
  const isChosen = (kind, i) => chosen && chosen.kind === kind && chosen.i === i;
  const sel = (kind, i) => isChosen(kind, i) ? " sel" : "";
  function thin(list, most) {
    if (list.length <= most) return list;
    const step = list.length / most;
    return Array.from({ length: most }, (_, n) => list[Math.floor(n * step)]);
  }
  function ticks(width) {
    const rough = (view.to - view.from) / Math.max(width / 110, 2);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const at = [];
    for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) at.push(t);
    return { at, digits: clamp(6 - Math.floor(Math.log10(step)), 0, 6) };
  }

  function draw() {
    const width = Math.max(lanes.clientWidth, 50);
    const scale = width / (view.to - view.from);
    const x = (t) => ((clamp(t, view.from - END, view.to + END) - view.from) * scale).toFixed(1);
    const span = (from, to, least = 0) => {
      const left = Math.max(from, view.from), right = Math.min(to, view.to);
      return { left: (left - view.from) * scale, width: Math.max((right - left) * scale, least) };
    };
    lanes.setAttribute("height", height);
    const out = [`<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="var(--rule)"/><line x1="0" y1="0" x2="0" y2="6" stroke="var(--faint)" stroke-width="2" opacity=".55"/></pattern></defs>`];

    const { at, digits } = ticks(width);
    for (const t of at) out.push(`<line class="grid" x1="${x(t)}" x2="${x(t)}" y1="0" y2="${height}"/>`);
    const anchor = (at) => at < 24 ? "start" : at > width - 24 ? "end" : "middle";
    axis.innerHTML = at.map((t) => `<text x="${x(t)}" y="17" text-anchor="${anchor(x(t))}">${(t / 1e6).toFixed(digits)} s</text>`).join("");
    for (const row of rows) if (row.kind === "node") out.push(`<line class="lane-line" x1="0" x2="${width}" y1="${row.y + ROW - .5}" y2="${row.y + ROW - .5}"/>`);

    for (const s of states) {
      if (!inView(s.from, s.to)) continue;
      const { left, width: w } = span(s.from, s.to, 1);
      out.push(`<rect class="${s.state}" x="${left.toFixed(1)}" width="${w.toFixed(1)}" y="${laneY[s.lane] - ROW / 2}" height="${ROW - 1}"/>`);
    }
    const tints = [];
    for (const fault of faults) if (inView(fault.begin, fault.until)) for (const lane of fault.nodes) tints.push([fault, lane]);
    for (const [fault, lane] of thin(tints, TINTS_DRAWN)) {
      const { left, width: w } = span(fault.begin, fault.until, 1);
      const strong = isChosen("fault", fault.i) ? "opacity:.34;" : "";
      out.push(`<rect class="tint" style="${strong}fill:var(--${fault.kind})" x="${left.toFixed(1)}" width="${w.toFixed(1)}" y="${laneY[lane] - ROW / 2}" height="${ROW - 1}"/>`);
    }
    const phases = [[0, data.phases.faults, faults.length ? "faults may happen" : "run"], [data.phases.faults, data.healed ?? END, "healing"], [data.healed ?? END, END, "quiet"]];
    for (const [from, to, label] of phases) {
      if (!(to > from) || !inView(from, to)) continue;
      const { left, width: w } = span(from, to);
      if (from > view.from) out.push(`<line x1="${left}" x2="${left}" y1="0" y2="${height}" stroke="var(--faint)" stroke-dasharray="2 4"/>`);
      if (w > 60) out.push(`<text class="phase" style="fill:var(--faint);font-size:10px" x="${left + 6}" y="13">${label}</text>`);
    }
    const seen = { faults: drawFaults(out, span), messages: drawMessages(out, x), calls: drawCalls(out, span, x) };
    drawViolations(out, x, scale);
    lanes.innerHTML = out.join("");
    $("drawn").textContent = `${seen.messages} of ${sentInAll.toLocaleString("en")} messages`;
    $("drawn").title = `Drawn now: ${seen.messages} messages of ${kept.toLocaleString("en")} that are kept and ${sentInAll.toLocaleString("en")} that were sent. Zoom in to see more.`;
    $("range").textContent = `${(view.from / 1e6).toFixed(digits)} – ${(view.to / 1e6).toFixed(digits)} s`;
    drawWindow();
    light();
    keepHash();
    Object.assign(root.dataset, { ready: 1, messages: seen.messages, calls: seen.calls, faults: seen.faults });
  }

  function drawFaults(out, span) {
    const list = thin(faults.filter((fault) => inView(fault.begin, fault.until)), FAULTS_DRAWN);
    for (const fault of list) {
      const { left, width: w } = span(fault.begin, fault.until, 3);
      const label = `${word(fault.kind)} · ${names(fault.nodes, fault.count)}`;
      const room = Math.floor((w - 10) / 6.1);
      const text = room > 4 ? `<text x="${left + 5}" y="${trackY(fault) + 12.5}">${esc(label.length > room ? `${label.slice(0, room - 1)}…` : label)}</text>` : "";
      out.push(`<g class="fault${sel("fault", fault.i)}" data-kind="fault" data-i="${fault.i}"><rect x="${left.toFixed(1)}" width="${w.toFixed(1)}" y="${trackY(fault)}" height="${TRACK - 2}" rx="3" fill="var(--${fault.kind})"/>${text}</g>`);
    }
    return list.length;
  }

  function drawMessages(out, x) {
    const shown = KINDS.map((kind) => kind.on);
    const calls = [], others = [];
    for (let i = 0; i < messages.at.length; i++) {
      const group = groupOf[messages.kind[i]];
      if (!shown[group] || messages.at[i] > view.to || Math.max(messages.arrives[i], messages.at[i]) < view.from) continue;
      (group === 0 ? calls : others).push(i);
    }
    // Calls are what people look for; all the rest shares what they leave.
    const some = thin(calls, MESSAGES_DRAWN / 2);
    const list = some.concat(thin(others, MESSAGES_DRAWN - some.length));
    if (chosen?.kind === "message" && !list.includes(chosen.i)) list.push(chosen.i);
    for (const i of list) {
      const arrives = messages.arrives[i], gone = arrives < 0;
      const y1 = laneY[messages.from[i]], whole = laneY[messages.to[i]];
      const y2 = gone ? y1 + (whole - y1) * .45 : whole;
      const line = `x1="${x(messages.at[i])}" y1="${y1}" x2="${x(gone ? messages.at[i] : arrives)}" y2="${y2}"`;
      out.push(`<line class="hit" data-kind="message" data-i="${i}" ${line}/><line class="msg${gone ? " off" : ""}${sel("message", i)}" stroke="var(--${KINDS[groupOf[messages.kind[i]]].color})" ${line}/>`);
      if (gone) out.push(`<circle cx="${x(messages.at[i])}" cy="${y2}" r="1.8" fill="var(--bad)" pointer-events="none"/>`);
    }
    return list.length;
  }

  function drawCalls(out, span, x) {
    const list = thin(calls.filter((call) => inView(call.begin, call.until)), CALLS_DRAWN);
    if (chosen?.kind === "call" && !list.includes(calls[chosen.i])) list.push(calls[chosen.i]);
    for (const call of list) {
      const { left, width: w } = span(call.begin, call.until, 3);
      out.push(`<g class="call${sel("call", call.i)}" data-kind="call" data-i="${call.i}"><rect x="${left.toFixed(1)}" width="${w.toFixed(1)}" y="${laneY[call.caller] - 4}" height="8" rx="2" fill="var(--${call.word === "running" ? "faint" : call.word})"/></g>`);
      for (const [lane, at] of call.ran) {
        if (lane !== call.caller && inView(at, at)) out.push(`<circle class="ran" data-kind="call" data-i="${call.i}" cx="${x(at)}" cy="${laneY[lane]}" r="3" fill="var(--${call.word === "running" ? "faint" : call.word})"/>`);
      }
    }
    const call = chosen?.kind === "call" ? calls[chosen.i] : null;
    for (const [lane, at] of call?.ran ?? []) out.push(`<path class="path" d="M${x(call.begin)} ${laneY[call.caller]}L${x(at)} ${laneY[lane]}L${x(call.until)} ${laneY[call.caller]}"/>`);
    return list.length;
  }

  function drawViolations(out, x, scale) {
    for (const v of violations) {
      if (!inView(v.at, v.at)) continue;
      const at = Number(x(v.at)), width = 9 + v.invariant.length * 7;
      const left = at + width > (view.to - view.from) * scale ? at - width : at;
      const ring = v.lane === undefined ? "" : `<circle cx="${at}" cy="${laneY[v.lane]}" r="8"/>`;
      out.push(`<g class="violation${sel("violation", v.i)}" data-kind="violation" data-i="${v.i}"><line x1="${at}" x2="${at}" y1="0" y2="${height}"/>${ring}<rect class="flag" x="${left}" y="${2 + v.i % 4 * 18}" width="${width}" height="16" rx="2"/><text x="${left + 4}" y="${14 + v.i % 4 * 18}">${esc(v.invariant)}</text></g>`);
    }
  }

  // ---- The whole run in one strip: calls by outcome, faults above them, violations across.
  const SLICES = 160;
  const slices = Array.from({ length: SLICES }, () => ({}));
  for (const call of calls) {
    const slice = slices[clamp(Math.floor(call.begin / END * SLICES), 0, SLICES - 1)];
    slice[call.word] = (slice[call.word] ?? 0) + 1;
  }
  const most = Math.max(1, ...slices.map((slice) => Object.values(slice).reduce((a, b) => a + b, 0)));
  function drawOverview() {
    overview.style.width = `${lanes.clientWidth}px`;
    const width = Math.max(lanes.clientWidth, 50), unit = width / SLICES, floor = 56, tall = 38;
    const out = [];
    const at = (t) => (t / END * width).toFixed(1);
    for (const fault of thin(faults, 300)) out.push(`<rect x="${at(fault.begin)}" width="${Math.max((fault.until - fault.begin) / END * width, 1.5).toFixed(1)}" y="${4 + fault.row}" height="${faultRows > 4 ? 2 : 4}" fill="var(--${fault.kind})" opacity=".75"/>`);
    slices.forEach((slice, n) => {
      let y = floor;
      for (const outcome of [...data.outcomes, "running"]) {
        const h = (slice[outcome] ?? 0) / most * tall;
        if (h) out.push(`<rect x="${(n * unit).toFixed(1)}" width="${Math.max(unit - .6, .6).toFixed(1)}" y="${(y -= h).toFixed(1)}" height="${h.toFixed(1)}" fill="var(--${outcome === "running" ? "faint" : outcome})"/>`);
      }
    });
    for (const v of violations) out.push(`<line x1="${at(v.at)}" x2="${at(v.at)}" y1="0" y2="58" stroke="var(--bad)" stroke-width="2"/>`);
    out.push(`<g id="window"></g>`);
    overview.innerHTML = out.join("");
    drawWindow();
  }
  function drawWindow() {
    const box = $("window");
    if (!box) return;
    const width = Math.max(lanes.clientWidth, 50), left = view.from / END * width, right = view.to / END * width;
    box.innerHTML = view.to - view.from >= END ? "" : `<rect class="window" x="${left}" width="${Math.max(right - left, 2)}" y="0" height="58"/><line class="window-edge" x1="${left}" x2="${left}" y1="0" y2="58"/><line class="window-edge" x1="${right}" x2="${right}" y1="0" y2="58"/>`;
  }

  // ---- Labels, details, figures.
  $("labels").style.height = `${height}px`;
  $("labels").innerHTML = rows.map((row) => row.kind === "group"
    ? `<div class="group" style="top:${row.y}px;height:${GROUP}px" title="${esc(row.label)} ${esc(row.note)}"><span>${esc(row.label)}</span><small>${esc(row.note)}</small></div>`
    : `<div class="node" style="top:${row.y}px" data-lane="${row.lane}" title="${esc(name(row.lane))}">${esc(name(row.lane))}</div>`).join("");
  function concerned(what) {
    if (!what) return [];
    const thing = order[what.kind]?.[what.i];
    if (what.kind === "message") return [messages.from[what.i], messages.to[what.i]];
    if (what.kind === "call") return [thing.caller, ...thing.ran.map(([lane]) => lane)];
    return what.kind === "fault" ? thing.nodes : thing.lane === undefined ? [] : [thing.lane];
  }
  function light() {
    const lit = new Set(concerned(chosen)), hurt = new Set(violations.map((v) => v.lane));
    for (const label of $("labels").querySelectorAll(".node")) {
      const lane = Number(label.dataset.lane);
      label.classList.toggle("lit", lit.has(lane));
      label.classList.toggle("hurt", hurt.has(lane));
    }
  }
  const part = (key, value) => `<p><span class="k">${key}</span>${esc(value)}</p>`;
  const describe = {
    violation: (i) => { const v = violations[i]; return [v.invariant, part("at", seconds(v.at)), v.node ? part("node", v.node) : "", part("", v.detail)]; },
    fault: (i) => { const f = faults[i]; return [word(f.kind), part("from", `${seconds(f.begin)} to ${f.end === null ? "the end" : seconds(f.end)}`), part("nodes", names(f.nodes, f.count)), f.fromCount ? part("cut off from", names(f.from, f.fromCount)) : "", f.detail ? part("", f.detail) : ""]; },
    call: (i) => { const c = calls[i]; return [`call of ${c.name}`, part("by", name(c.caller)), part("outcome", word(c.word)), part("at", seconds(c.begin)), c.end === null ? "" : part("took", took(c.end - c.begin)), c.by === null ? "" : part("answered by", name(c.by)), c.ran.length ? part("ran at", c.ran.map(([lane, at]) => `${name(lane)} (${seconds(at)})`).join(", ")) : part("ran", "nowhere")]; },
    message: (i) => { const a = messages.arrives[i]; return [messages.whats[messages.what[i]], part("kind", KINDS[groupOf[messages.kind[i]]].label), part("", `${name(messages.from[i])} → ${name(messages.to[i])}`), part("sent", seconds(messages.at[i], 6)), a === -1 ? part("", "held back by a cut") : a === -2 ? part("", "lost") : part("took", took(a - messages.at[i])), part("bytes", messages.bytes[i])]; },
  };
  function tell(what = chosen) {
    const details = $("details");
    if (!what) { details.innerHTML = `<p class="hint">Point at anything to see what it is; click to keep it. Tab into the timeline for keys.</p>`; return; }
    const [title, ...rest] = describe[what.kind](what.i);
    details.innerHTML = `<h2>${esc(title)}</h2>${rest.join("")}`;
  }

  $("name").textContent = report.scenario;
  $("seed").textContent = `seed ${report.seed}`;
  $("about").textContent = data.about;
  const bad = violations.length;
  $("verdict").textContent = bad ? `${many(bad, "violation")}` : "every invariant held";
  $("verdict").classList.toggle("bad", bad > 0);
  $("violations").hidden = !bad;
  $("violations").innerHTML = violations.map((v) => `<button type="button" data-i="${v.i}"><b>${esc(v.invariant)}</b><span class="num">${seconds(v.at)}${v.node ? `, ${esc(v.node)}` : ""}</span><span>${esc(v.detail)}</span></button>`).join("");
  const sentInAll = Object.values(data.sent).reduce((a, b) => a + b, 0), kept = messages.at.length;
  const figures = report.figures, all = Object.values(figures.calls).reduce((a, b) => a + b, 0);
  const ms = (value) => value === null || value === undefined ? "–" : `${(value / 1000).toFixed(1)} <small>s</small>`;
  const figure = (label, value, wide = "") => `<div class="${wide}"><dt>${label}</dt><dd>${value}</dd></div>`;
  const spread = figures.advert_spread_ms, latency = figures.call_ms;
  const outcomes = Object.entries(figures.calls);
  $("figures").innerHTML = [
    figure("Nodes", `${figures.nodes} <small>in ${many(data.sites.length, "site")}</small>`),
    figure("Simulated", `${(END / 1e6).toFixed(0)} <small>s, ${figures.events.toLocaleString("en")} events</small>`),
    figure("Converged after", ms(figures.converged_ms)),
    figure("Healed after faults", figures.healed_ms === null ? "not" : ms(figures.healed_ms)),
    figure("An advert arrives in", spread ? `${spread.p50} <small>ms, p99 ${spread.p99}</small>` : "–"),
    figure("Calls take", latency ? `${latency.p50} <small>ms, p99 ${latency.p99}</small>` : "–"),
    all ? figure("Calls", `${all.toLocaleString("en")}<div class="outcomes">${outcomes.map(([o, n]) => `<i style="flex:${n};background:var(--${o})"></i>`).join("")}</div><div class="legend">${outcomes.map(([o, n]) => `<span><i style="background:var(--${o})"></i>${n.toLocaleString("en")} ${esc(word(o))}</span>`).join("")}</div>`, "wide") : "",
  ].join("");
  $("chips").innerHTML = KINDS.map((kind, i) => {
    const sent = kind.of.reduce((sum, one) => sum + (data.sent[one] ?? 0), 0);
    return sent ? `<button type="button" class="chip" data-i="${i}" aria-pressed="${kind.on}"><i style="background:var(--${kind.color})"></i>${kind.label} <small>${sent.toLocaleString("en")}</small></button>` : "";
  }).join("");
  const left = data.leftOut, notes = [];
  if (data.nodes.length < data.nodesInAll) notes.push(`${data.nodes.length} of ${data.nodesInAll} nodes have a lane: those that something befell, and of the rest the first.`);
  if (left.messages) notes.push(`${left.messages.toLocaleString("en")} of ${sentInAll.toLocaleString("en")} messages are left out: each frequent kind is thinned evenly${bad ? "; all of them are kept around violations" : ""}.`);
  if (left.calls) notes.push(`${left.calls.toLocaleString("en")} calls are left out.`);
  if (left.faults) notes.push(`${left.faults.toLocaleString("en")} faults are left out.`);
  $("footer").innerHTML = [...notes.map(esc), `<code>simnet replay '${esc(report.replay)}'</code>`, `commit ${esc(report.commit)} · scenario ${esc(report.scenario_hash)} · trace ${esc(report.trace_hash)}`].map((line) => `<span>${line}</span>`).join("");

  // ---- What people do.
  const target = (event) => {
    const found = event.target.closest?.("[data-kind]");
    return found ? { kind: found.dataset.kind, i: Number(found.dataset.i) } : null;
  };
  const timeAt = (event, svg, from, to) => {
    const box = svg.getBoundingClientRect();
    return from + clamp((event.clientX - box.left) / box.width, 0, 1) * (to - from);
  };
  lanes.addEventListener("pointermove", (event) => { if (!drag) tell(target(event) ?? chosen); });
  lanes.addEventListener("pointerleave", () => tell());
  let drag = null;
  lanes.addEventListener("pointerdown", (event) => {
    if (event.button === 0) drag = { at: event.clientX, from: view.from, to: view.to, moved: false, hit: target(event) };
  });
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const by = event.clientX - drag.at;
    if (!drag.moved && Math.abs(by) < 4) return;
    drag.moved = true;
    lanes.classList.add("dragging");
    const shift = by / lanes.clientWidth * (drag.to - drag.from);
    setView(drag.from - shift, drag.to - shift);
  });
  window.addEventListener("pointerup", () => {
    if (drag && !drag.moved) choose(drag.hit);
    drag = null;
    lanes.classList.remove("dragging");
  });
  timeline.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(clamp(event.deltaY, -60, 60) / 120), timeAt(event, lanes, view.from, view.to));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan(event.deltaX / lanes.clientWidth);
    }
  }, { passive: false });
  let brush = null;
  overview.addEventListener("pointerdown", (event) => { brush = timeAt(event, overview, 0, END); overview.setPointerCapture(event.pointerId); });
  overview.addEventListener("pointermove", (event) => {
    if (brush === null) return;
    const now = timeAt(event, overview, 0, END);
    if (Math.abs(now - brush) > END / 200) setView(Math.min(brush, now), Math.max(brush, now));
  });
  overview.addEventListener("pointerup", (event) => {
    const now = timeAt(event, overview, 0, END), half = (view.to - view.from) / 2;
    if (brush !== null && Math.abs(now - brush) <= END / 200) setView(now - half, now + half);
    brush = null;
  });

  function go(what) {
    if (!what) return;
    const thing = order[what.kind]?.[what.i];
    const begin = what.kind === "message" ? messages.at[what.i] : thing.at ?? thing.begin;
    const until = what.kind === "message" ? Math.max(messages.arrives[what.i], begin) : thing.until ?? begin;
    const width = view.to - view.from;
    if (what.kind === "violation" && width > END / 4) setView(begin - 3e6, begin + 3e6);
    else if (begin < view.from || until > view.to) setView(begin - width / 4, Math.max(begin + width * 3 / 4, until));
    choose(what);
    const lane = concerned(what)[0];
    if (lane !== undefined) timeline.scrollTop = clamp(laneY[lane] - timeline.clientHeight / 2, 0, height);
  }
  function step(kind, back) {
    let list;
    if (kind === "message") {
      list = [];
      for (let i = 0; i < messages.at.length; i++) if (KINDS[groupOf[messages.kind[i]]].on) list.push(i);
    } else list = order[kind].map((_, i) => i);
    if (!list.length) return;
    const time = (i) => kind === "message" ? messages.at[i] : order[kind][i].at ?? order[kind][i].begin;
    let next;
    if (chosen?.kind === kind) next = list.indexOf(chosen.i) + (back ? -1 : 1);
    else next = back ? list.findLastIndex((i) => time(i) <= view.to) : list.findIndex((i) => time(i) >= view.from);
    go({ kind, i: list[clamp(next, 0, list.length - 1)] });
  }
  const KEYS = {
    ArrowLeft: () => pan(-.15), ArrowRight: () => pan(.15), "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1.6), 0: () => setView(0, END),
    v: (back) => step("violation", back), f: (back) => step("fault", back), c: (back) => step("call", back), m: (back) => step("message", back),
    Escape: () => choose(null), "?": () => $("keys").showModal(),
  };
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!act || (event.target.closest("button") && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act(event.shiftKey);
  });
  $("violations").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { go({ kind: "violation", i: Number(button.dataset.i) }); timeline.scrollIntoView({ block: "nearest" }); }
  });
  $("chips").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    const kind = KINDS[chip.dataset.i];
    kind.on = !kind.on;
    chip.setAttribute("aria-pressed", kind.on);
    redraw();
  });
  $("zoom-in").addEventListener("click", () => zoom(.5));
  $("zoom-out").addEventListener("click", () => zoom(2));
  $("fit").addEventListener("click", () => setView(0, END));
  $("help").addEventListener("click", () => $("keys").showModal());
  $("copy").addEventListener("click", async (event) => {
    const line = `simnet replay '${report.replay}'`;
    try { await navigator.clipboard.writeText(line); event.target.textContent = "Copied"; } catch { event.target.textContent = "See below"; }
    setTimeout(() => { event.target.textContent = "Copy replay line"; }, 1500);
  });
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  new ResizeObserver(() => { drawOverview(); redraw(); }).observe(lanes);
  window.addEventListener("hashchange", fromHash);
  tell();
  fromHash();
  drawOverview();
  draw();
})();
