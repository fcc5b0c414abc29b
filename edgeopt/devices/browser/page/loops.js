// The loops of edgeopt/agent/loops.py, on performance.now(): about 5 µs fine where the page is cross-origin isolated
// (W3C, High Resolution Time, "coarsen time"), so a latency below a tenth of a millisecond is told coarsely.

const WINDOW = 10; // inferences whose median is one level
const ALIKE = 3; // so many levels in a row must agree
const SPIN_MS = 2; // a timer may end late by about so much; the rest of a wait is spent looking at the clock

// Run `least` times; then on, until the medians of three successive windows agree within `within` percent.
export async function warmed(run, least, within, most, limitS) {
  const start = performance.now();
  let n = 0;
  let converged = false;
  let window = [];
  const levels = [];
  while (n < least || (within !== null && !converged)) {
    if (n >= least && (n >= most || performance.now() - start > limitS * 1e3)) break;
    const before = performance.now();
    await run();
    window.push(performance.now() - before);
    n += 1;
    if (window.length === WINDOW) {
      levels.push(window.sort((a, b) => a - b)[WINDOW / 2]);
      window = [];
      const last = levels.slice(-ALIKE);
      converged = last.length === ALIKE && Math.max(...last) <= Math.min(...last) * (1 + (within ?? 0) / 100);
    }
  }
  return { n, seconds: (performance.now() - start) / 1e3, converged: within === null ? null : converged };
}

// `n` queries of `per` inferences, each query timed.
export async function timed(run, n, per) {
  const latency = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const start = performance.now();
    for (let k = 0; k < per; k++) await run();
    latency[i] = performance.now() - start;
  }
  return { latency_ns: Array.from(latency, nanoseconds) };
}

// One inference per arrival, first come first served; a latency counts from the scheduled arrival.
export async function arrivals(run, scheduleNs) {
  const count = scheduleNs.length;
  const [latency, service] = [new Float64Array(count), new Float64Array(count)];
  const begin = performance.now();
  for (let i = 0; i < count; i++) {
    const due = begin + scheduleNs[i] / 1e6;
    const ahead = due - performance.now();
    if (ahead > SPIN_MS) await new Promise((done) => setTimeout(done, ahead - SPIN_MS));
    while (performance.now() < due);
    const start = performance.now();
    await run();
    const end = performance.now();
    latency[i] = end - due;
    service[i] = end - start;
  }
  return {
    latency_ns: Array.from(latency, nanoseconds),
    service_ns: Array.from(service, nanoseconds),
    seconds: (performance.now() - begin) / 1e3,
  };
}

function nanoseconds(ms) {
  return Math.round(ms * 1e6);
}
