// The figures of the status page: asks the listener that sent it, and nobody else.
"use strict";

const EVERY_MS = 2000;
const SECONDS = 299;
const BAD_SHOWN = 20;
const samples = [];
let before = null;

const at = (id) => document.getElementById(id);
const show = (id, text) => {
  const place = at(id);
  if (place.textContent !== String(text)) place.textContent = text;
};
const count = (number) => number.toLocaleString("en");

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? number : number.toFixed(number < 10 ? 2 : 1)} ${units[unit]}`;
}

function duration(seconds) {
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit));
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

function microseconds(number) {
  if (number < 1000) return `${number} µs`;
  return number < 1e6 ? `${Math.round(number / 1000)} ms` : `${(number / 1e6).toFixed(1)} s`;
}

function draw() {
  const peak = Math.max(...samples, 1);
  const x = (index) => (600 * (index + SECONDS - samples.length)) / (SECONDS - 1);
  const y = (value) => 138 - (134 * value) / peak;
  const points = samples.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  at("line").setAttribute("d", line);
  at("area").setAttribute("d", line && `${line}L600,140L${x(0).toFixed(1)},140Z`);
  const text = `peak ${bytes(Math.max(...samples, 0))}/s`;
  show("peak", text);
  show("chart-text", `Throughput over the last five minutes: ${text}`);
}

function note(status) {
  if (before && before.started === status.started) {
    const seconds = status.up_seconds - before.up_seconds;
    const rate = seconds > 0 ? (status.payload_bytes - before.payload_bytes) / seconds : 0;
    for (let second = 0; second < Math.min(seconds, SECONDS); second += 1) samples.push(rate);
    if (seconds === 0) return;
  }
  samples.splice(0, samples.length - SECONDS);
  before = status;
  draw();
}

function render(status) {
  const phase = at("phase");
  phase.className = `badge ${status.phase}`;
  const indexed = status.indexed_files;
  show("phase", indexed === null ? status.phase : `${status.phase}, ${count(indexed)} files so far`);
  show("up", `up ${duration(status.up_seconds)} ·`);
  show("version", `version ${status.version}`);
  document.title = `${bytes(status.payload_bytes_per_second)}/s – Hekate`;
  show("rate", `${bytes(status.payload_bytes_per_second)}/s`);
  show("sent", bytes(status.payload_bytes));
  show("blocks", count(status.blocks));
  show("rejected", count(status.requests_rejected));
  const peers = Object.values(status.peers).reduce((sum, some) => sum + some, 0);
  show("peers", count(peers));
  show("peers-max", count(status.peers_max));
  show("slots", count(status.slots));
  show("connections", count(status.connections));
  for (const [state, some] of Object.entries(status.peers)) {
    show(state, count(some));
    at(`bar-${state}`).style.width = `${peers ? (100 * some) / peers : 0}%`;
  }
  show("rc4", count(status.wires.tcp_mse_rc4));
  show("mse-plaintext", count(status.wires.tcp_mse_plaintext));
  show("torrents", count(status.library.torrents));
  show("active", count(status.library.active));
  show("refused", count(status.library.refused));
  const { residency_hits: hits, residency_misses: misses } = status.storage;
  show("hits", hits + misses ? `${((100 * hits) / (hits + misses)).toFixed(1)} %` : "–");
  show("queued", count(status.storage.jobs_queued));
  show("readers", count(status.storage.readers));
  show("job", microseconds(status.storage.job_p99_us));
  show("late", count(status.storage.late_faults));
  show("turn", microseconds(status.turn.p99_us));
  renderHung(Object.entries(status.storage.hung_disks));
  renderPieces(status.pieces);
  renderTrackers(status);
  const ends = Object.entries(status.connections_closed).filter(([, some]) => some > 0);
  ends.sort((one, other) => other[1] - one[1]);
  at("none-closed").hidden = ends.length > 0;
  at("closed").replaceChildren(...ends.map(([reason, some]) => {
    const row = document.createElement("div");
    row.append(cell("dt", reason.replaceAll("_", " ")), cell("dd", count(some)));
    return row;
  }));
}

function cell(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

function renderHung(disks) {
  at("hung").hidden = disks.length === 0;
  at("hung-disks").replaceChildren(...disks.map(([disk, seconds]) => entry(disk, duration(seconds))));
}

// Without --verify=lazy no piece is hashed.
function renderPieces(pieces) {
  at("pieces").hidden = pieces === null;
  at("bad").hidden = pieces === null || pieces.bad === 0;
  if (pieces === null) return;
  show("verified", count(pieces.verified));
  show("to-hash", count(pieces.hash_jobs_queued));
  show("bad-pieces", count(pieces.bad));
  at("bad-pieces").className = pieces.bad > 0 ? "bad" : "";
  const shown = pieces.first_bad.slice(0, BAD_SHOWN);
  const rows = shown.map((bad) => entry(bad.info_hash, `piece ${count(bad.piece)}`));
  if (pieces.bad > shown.length) rows.push(entry("others", count(pieces.bad - shown.length)));
  at("first-bad").replaceChildren(...rows);
}

function entry(term, text) {
  const row = document.createElement("div");
  row.append(cell("dt", term), cell("dd", text));
  return row;
}

// A row with its name first. Where the page is too narrow for columns, each cell shows the name of its own.
function tableRow(body, name, cells) {
  const row = document.createElement("tr");
  const head = cell("th", name);
  head.scope = "row";
  row.append(head, ...cells);
  const names = at(body).closest("table").tHead.rows[0].cells;
  cells.forEach((one, index) => {
    one.dataset.label = names[index + 1].textContent;
  });
  return row;
}

function renderBusiest(torrents) {
  at("nobody").hidden = torrents.length > 0;
  at("busiest").replaceChildren(...torrents.map((torrent) => {
    const figures = [`${bytes(torrent.payload_bytes_per_second)}/s`, count(torrent.peers),
      bytes(torrent.payload_bytes), bytes(torrent.bytes)];
    const row = tableRow("busiest", torrent.name, figures.map((figure) => cell("td", figure)));
    row.firstChild.title = torrent.info_hash;
    return row;
  }));
}

// One row of figures, and one of words when there was trouble.
function trackerRows(tracker, name, state, trouble) {
  const sums = [tracker.torrents, tracker.accepted, tracker.refused, tracker.failed, tracker.connections,
    tracker.requests_in_flight];
  const late = cell("td", tracker.late_seconds ? duration(tracker.late_seconds) : "on time");
  late.className = tracker.late_seconds >= 300 ? "late" : "";
  const row = tableRow("trackers", name, [state, late, ...sums.map((sum) => cell("td", count(sum)))]);
  if (!trouble) return [row];
  row.className = "has-trouble";
  const words = document.createElement("tr");
  words.className = "trouble";
  words.append(cell("td", trouble));
  words.firstChild.colSpan = row.cells.length;
  return [row, words];
}

function renderTrackers(status) {
  const { trackers, trackers_others: others } = status;
  // Those that are worst off first.
  trackers.sort((one, other) => other.late_seconds - one.late_seconds);
  const rows = trackers.flatMap((tracker) => {
    const resting = tracker.state === "resting";
    const state = cell("td", resting ? `backing off, ${duration(tracker.rests_seconds)}` : tracker.state);
    state.className = `state ${tracker.state}`;
    const ago = tracker.trouble === null ? "" : `Last trouble, ${duration(tracker.trouble_seconds_ago)} ago: ${tracker.trouble}`;
    return trackerRows(tracker, tracker.tracker, state, ago);
  });
  // What cannot be used has no figures.
  const words = (name, text) => {
    const row = tableRow("trackers", name, [cell("td", text)]);
    row.lastChild.colSpan = 8;
    rows.push(row);
  };
  for (const { tracker, why } of status.trackers_unusable.first) words(tracker, why);
  if (status.library.unannounced > 0) words("none", `${count(status.library.unannounced)} torrents name none that can be used`);
  if (others.trackers > 0) rows.push(...trackerRows(others, `${count(others.trackers)} others`, cell("td", ""), ""));
  at("no-trackers").hidden = rows.length > 0;
  at("trackers").replaceChildren(...rows);
}

const ask = async (path) => {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
};

async function turn() {
  try {
    if (!document.hidden) {
      const status = await ask("status.json");
      if (before === null || before.started !== status.started) {
        samples.length = 0;
        samples.push(...(await ask("history.json")).payload_bytes);
      }
      note(status);
      render(status);
      renderBusiest((await ask("torrents?busiest=10")).torrents);
    }
  } catch {
    at("phase").className = "badge lost";
    show("phase", "does not answer");
  }
  setTimeout(turn, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  // What was not asked for meanwhile is in the history.
  before = null;
});
turn();
