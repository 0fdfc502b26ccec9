// Keeps the fleet page alive: listens for new versions, asks htmx to morph them in, redraws the
// chart, and speaks the headline when it changes. The page is whole without it.

const link = document.getElementById("link");
const spoken = document.getElementById("spoken");

function say(state, text) {
  if (link.dataset.state === state && link.textContent === text) return;
  link.dataset.state = state;
  link.textContent = text;
}

// --- Live -------------------------------------------------------------------------------------
let stream = null;

function refresh() {
  document.body.dispatchEvent(new CustomEvent("fleet-changed"));
}

function open() {
  if (stream || document.hidden) return;
  stream = new EventSource("/fleet/events");
  stream.addEventListener("fleet", (event) => {
    say("on", "Live");
    if (event.data !== document.getElementById("live").dataset.version) refresh();
  });
  stream.onerror = () => {
    if (stream.readyState !== EventSource.CLOSED) return say("lost", "Reconnecting");
    close();
    fetch("/fleet/events", { method: "HEAD" }).then(
      (answer) => {
        if (answer.status === 401) return say("out", "Signed out: open a new login link");
        say("lost", "Reconnecting");
        setTimeout(open, 2000);
      },
      () => {
        say("lost", "Holdfast does not answer");
        setTimeout(open, 2000);
      },
    );
  };
}

function close() {
  stream?.close();
  stream = null;
}

// A hidden tab holds no connection: browsers allow six to one host.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) close();
  else open();
});
addEventListener("pagehide", close);
addEventListener("pageshow", open);

// --- What is new is spoken once ---------------------------------------------------------------
let said = document.getElementById("live").dataset.said;

function speak() {
  const now = document.getElementById("live").dataset.said;
  if (now === said) return;
  said = now;
  spoken.textContent = now;
  document.title = `${document.getElementById("state").textContent} · Holdfast`;
}

// --- Chart ------------------------------------------------------------------------------------
let chart = null;
let drawn = "";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A dot where each line stands now: a drop at this very moment is a point, not yet a line.
function mark(plot) {
  for (const [index, radius] of [[1, 6], [2, 3.5]]) {
    const values = plot.data[index];
    const x = plot.valToPos(plot.data[0].at(-1), "x", true);
    const y = plot.valToPos(values.at(-1), "y", true);
    plot.ctx.beginPath();
    plot.ctx.fillStyle = colour(index === 1 ? "--band" : "--accent");
    plot.ctx.arc(x, y, radius * uPlot.pxRatio, 0, 2 * Math.PI);
    plot.ctx.fill();
  }
}

function options(box) {
  const stepped = uPlot.paths.stepped({ align: 1 });
  const ink = { stroke: colour("--muted"), font: "11px system-ui, sans-serif" };
  const grid = { stroke: colour("--line"), width: 1 };
  const line = { paths: stepped, points: { show: false } };
  return {
    width: box.clientWidth,
    height: box.clientHeight,
    padding: [8, 28, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    select: { show: false },
    tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
    scales: { x: { range: (_, low, high) => [Math.min(low, high - 60), high] }, y: { range: [0, 3.3] } },
    axes: [
      {
        ...ink,
        grid: { show: false },
        ticks: { show: false },
        size: 26,
        space: (_, axis, low, high) => (high - low > 150 ? 48 : 72),
        values: [
          [86400, "{D} {MMM}", null, null, null, null, null, null, 1],
          [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
          [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
        ],
      },
      { ...ink, grid, ticks: { show: false }, size: 26, splits: [0, 1, 2, 3] },
    ],
    series: [
      {},
      { ...line, label: "Replicas", stroke: colour("--band"), width: 8 },
      { ...line, label: "Relays", stroke: colour("--accent"), width: 2 },
    ],
    hooks: { draw: [mark] },
  };
}

function draw(again = false) {
  const box = document.getElementById("chart");
  if (!box) return;
  if (!again && chart && chart.root.isConnected && drawn === box.dataset.series) return;
  drawn = box.dataset.series;
  const [at, relays, replicas] = JSON.parse(drawn);
  const data = [at, replicas, relays];
  if (chart && chart.root.isConnected && !again) return chart.setData(data);
  chart?.destroy();
  box.replaceChildren();
  chart = new uPlot(options(box), data, box);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
addEventListener("resize", () => draw(true));

// --- Morphing ---------------------------------------------------------------------------------
htmx.registerExtension("keep-open", {
  // What a person opened stays open: the server does not know.
  htmx_before_morph_attr: (element, detail) =>
    !(element.tagName === "DETAILS" && detail.attrName === "open"),
});
document.addEventListener("htmx:after:swap", () => {
  speak();
  draw();
});

draw();
open();
