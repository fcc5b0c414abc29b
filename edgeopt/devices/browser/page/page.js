// The page that a browser is opened on: it hands requests to the worker that holds the engine, and shows what came back.

import { drawHistogram, drawOutputs, fact } from "./draw.js";
import { features, resolutionUs } from "./probe.js";

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
const latency = [];
let number = 0;

worker.onmessage = ({ data: { id, reply } }) => {
  waiting.get(id)?.(reply);
  waiting.delete(id);
};
// An error outside of any request (a script that cannot be loaded, a thread that died) answers whatever is open.
worker.onerror = (event) => {
  for (const answer of waiting.values()) answer({ error: event.message || "the worker died", kind: "WorkerError" });
  waiting.clear();
};

function toWorker(request) {
  number += 1;
  const id = number;
  return new Promise((answer) => {
    waiting.set(id, answer);
    worker.postMessage({ id, request });
  });
}

const actions = {
  async probe() {
    return {
      isolated: self.crossOriginIsolated,
      threads: navigator.hardwareConcurrency,
      agent: navigator.userAgent,
      features: features(),
      clock_us: resolutionUs(),
    };
  },

  async load(request) {
    const reply = await toWorker(request);
    if (!reply.error) {
      document.getElementById("title").textContent = request.title;
      fact("load", `${reply.load_ms.toFixed(1)} ms`);
    }
    return reply;
  },

  // Only when asked: drawing must not run beside what is timed.
  async show({ where, facts, outputs }) {
    document.getElementById("where").textContent = where;
    for (const [name, text] of Object.entries(facts)) fact(name, text);
    if (outputs) drawOutputs(outputs);
    if (latency.length) drawHistogram(latency);
    return {};
  },
};

window.edgeopt = {
  async ask(request) {
    const reply = await (actions[request.do] || toWorker)(request);
    if (request.do === "time" && reply.latency_ns) {
      latency.push(...reply.latency_ns);
    }
    if (reply.error) {
      const failure = document.getElementById("failure");
      failure.hidden = false;
      failure.textContent = `${request.do}: ${reply.error}`;
    }
    return reply;
  },
};
