// What the page shows: facts, a histogram of latencies, the outputs of one sample.

const [WIDTH, HEIGHT, FOOT] = [640, 200, 20];
const BARS = 60;
const SHOWN = 10; // of each output's values, the largest

export function fact(name, text) {
  const facts = document.getElementById("facts");
  let value = facts.querySelector(`dd[data-name="${CSS.escape(name)}"]`);
  if (!value) {
    const term = document.createElement("dt");
    term.textContent = name.replaceAll("_", " ");
    value = document.createElement("dd");
    value.dataset.name = name;
    facts.append(term, value);
  }
  value.textContent = text;
}

// Latencies in ns. The last bar holds whatever lies beyond the 95th percentile's neighbourhood.
export function drawHistogram(latencyNs) {
  const ms = latencyNs.map((ns) => ns / 1e6).sort((a, b) => a - b);
  const at = (q) => ms[Math.min(ms.length - 1, Math.floor(q * ms.length))];
  const low = ms[0];
  const span = Math.max(at(0.95) * 1.1 - low, 1e-3);
  const counts = new Array(BARS).fill(0);
  for (const value of ms) counts[Math.min(BARS - 1, Math.floor(((value - low) / span) * BARS))] += 1;
  const highest = Math.max(...counts);
  const svg = document.getElementById("histogram");
  svg.replaceChildren();
  counts.forEach((count, i) => {
    const height = (count / highest) * (HEIGHT - FOOT - 5);
    const size = { width: WIDTH / BARS - 1, height, x: (i * WIDTH) / BARS, y: HEIGHT - FOOT - height };
    svg.append(element("rect", size));
  });
  const x = ((at(0.5) - low) / span) * WIDTH;
  svg.append(element("line", { x1: x, x2: x, y1: 0, y2: HEIGHT - FOOT }));
  const label = { y: HEIGHT - 5 };
  svg.append(element("text", { ...label, x: 2 }, `${low.toPrecision(3)} ms`));
  svg.append(element("text", { ...label, x: WIDTH - 2, "text-anchor": "end" }, `${(low + span).toPrecision(3)} ms`));
  const told = [0.5, 0.9, 0.99].map((q) => `p${Math.round(q * 100)} ${at(q).toFixed(3)} ms`).join(", ");
  document.getElementById("quantiles").textContent = `${told}, of ${ms.length} inferences; the line is p50.`;
}

// {output name: its first sample's values}
export function drawOutputs(outputs) {
  const where = document.getElementById("outputs");
  where.replaceChildren();
  for (const [name, values] of Object.entries(outputs)) {
    const ranked = values.map((value, index) => [index, value]).sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
    const widest = Math.max(...ranked.map(([, value]) => Math.abs(value)), 1e-12);
    const table = document.createElement("table");
    table.append(row([`${name}, ${values.length} values, the largest first`]));
    for (const [index, value] of ranked) {
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.style.width = `${(Math.abs(value) / widest) * 12}rem`;
      table.append(row([String(index), value.toPrecision(6), bar]));
    }
    where.append(table);
  }
}

function row(cells) {
  const line = document.createElement("tr");
  cells.forEach((content, i) => {
    const cell = document.createElement("td");
    if (cells.length === 1) cell.colSpan = 3;
    cell.append(content);
    line.append(cell);
  });
  return line;
}

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
